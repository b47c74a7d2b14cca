"""The links inside the documentation: to pages, to other files, and to headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests.support.docs import ROOT

_FOLDERS = ("deploy", "docs", "examples")

PAGES = sorted([*ROOT.glob("*.md"), *(page for folder in _FOLDERS for page in (ROOT / folder).rglob("*.md"))])
"""Every page, on the site or not."""

_CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)")
_HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)


def broken_links(page: Path, text: str | None = None) -> Iterator[str]:
    """Yield the targets of the links on `page` that do not exist.

    Args:
        page: The page; relative links begin at its folder.
        text: Its content; by default it is read.
    """
    content = _CODE.sub("", page.read_text() if text is None else text)
    for target in _LINK.findall(content):
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        path, _, anchor = target.partition("#")
        other = (page.parent / path).resolve() if path else page
        if not other.exists() or (anchor and anchor not in anchors(other)):
            yield target


def anchors(page: Path) -> set[str]:
    """Return the anchors of the headings on `page`, as GitHub and the site make them."""
    without_code = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return {_slug(heading) for heading in _HEADING.findall(without_code)}


def _slug(heading: str) -> str:
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-")
