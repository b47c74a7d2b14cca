"""A hook of MkDocs: links from a page to files outside docs/ lead to the repository."""

from __future__ import annotations

import posixpath
import re
from typing import Any

_LINK = re.compile(r"(\]\()([^)#\s]+)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Return the page with the links that leave docs/ replaced by addresses of the repository."""

    def replaced(match: re.Match[str]) -> str:
        target = match[2]
        path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page.file.src_uri), target))
        if ":" in target or path.startswith("docs/"):
            return match[0]
        return f"{match[1]}{config['repo_url']}/blob/main/{path}"

    return _LINK.sub(replaced, markdown)
