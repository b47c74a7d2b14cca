"""The examples of a page of documentation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


async def run_example(example: str) -> None:
    """Run an example as its reader would: as a program of its own, its `main`."""
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(example, "example", "exec", dont_inherit=True), names)
    await names["main"]()


def blocks(page: str, language: str) -> list[str]:
    """Return the fenced blocks of `page`, a path from the project's root, that are in `language`."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
