"""The examples of the page run as they stand, on asyncio and on Trio."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import pytest

PAGE = Path(__file__).parents[3] / "docs" / "guides" / "bus.md"
EXAMPLES = [
    pytest.param(code, id=re.sub(r"\W+", "-", title.strip()) or "start")
    for title, text in re.findall(r"^#+ (.*)\n((?:(?!^#+ ).*\n)*)", PAGE.read_text(), re.MULTILINE)
    for code in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("code", EXAMPLES)
def test_an_example_of_the_page_runs_as_it_stands(code: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    example: Any = ModuleType("example")
    monkeypatch.setitem(sys.modules, "example", example)  # where dataclasses look for what annotations name
    exec(compile(code, str(PAGE), "exec"), vars(example))
    anyio.run(example.main, backend=backend)


def test_page_has_an_example_for_each_feature() -> None:
    assert len(EXAMPLES) >= 11
