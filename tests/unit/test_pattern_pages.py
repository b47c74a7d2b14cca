"""The examples of the pages on phase lists and on migrating run as they stand."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import anyio
import pytest

from tests.support.docs import blocks

EXAMPLES = [(page, code) for page in ("docs/phase-lists.md", "docs/migrating.md") for code in blocks(page, "python")]


@pytest.mark.parametrize(("page", "code"), EXAMPLES)
def test_an_example_of_the_page_runs_as_it_stands(page: str, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    example: Any = ModuleType("example")
    monkeypatch.setitem(sys.modules, "example", example)
    exec(compile(code, page, "exec"), vars(example))
    anyio.run(example.main)


def test_the_pages_show_a_phase_list_and_all_three_forms() -> None:
    assert len(EXAMPLES) == 4
