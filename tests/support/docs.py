"""The examples of a page of documentation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


async def run_example(example: str) -> dict[str, Any]:
    """Run an example as its reader would: as a program of its own, its `main`. Return the names it defines."""
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(example, "example", "exec", dont_inherit=True), names)
    await names["main"]()
    return names


def blocks(page: str, language: str) -> list[str]:
    """Return the fenced blocks of `page`, a path from the project's root, that are in `language`."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
