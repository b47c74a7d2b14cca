"""Tables on a terminal that is too narrow for them: texts are cut, numbers and ids are not."""

from __future__ import annotations

import io
import sys

import pytest

from phasebus.initializer.cli.blame import print_blame
from phasebus.initializer.cli.report.show import Column, print_table
from tests.support.runs import run_of, step

LONG = "import modules vllm.v1.engine.async_llm · front_end"
ID = "20261130T061410-bbbddf8398c3"


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> Screen:
    """Make standard output a terminal of that width; return what is written to it."""
    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "dumb", "LINES": "24", "COLUMNS": str(columns)}.items():
        monkeypatch.setenv(name, value)
    return screen


@pytest.mark.parametrize("columns", [50, 60, 80])
def test_table_on_a_narrow_terminal_keeps_numbers_and_ids(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    screen = terminal(monkeypatch, columns)
    print_table([Column("seconds", "s"), Column("run", "id"), Column("in"), Column("after")], [(12.34, ID, LONG, LONG)])
    heading, row = screen.getvalue().splitlines()
    assert heading.startswith("seconds  run")
    assert row.startswith(f"  12.34  {ID}")
    assert row.endswith("…")
    assert len(row) <= columns


@pytest.mark.parametrize(("columns", "has_bars"), [(40, False), (80, True)])
def test_blame_on_a_narrow_terminal_keeps_the_seconds(
    monkeypatch: pytest.MonkeyPatch, columns: int, has_bars: bool
) -> None:
    screen = terminal(monkeypatch, columns)
    module = "vllm.v1.engine.async_llm_with_a_long_name_that_does_not_end"
    node = step("n", 0, 20, kind="node")
    long = step("import_modules", 0, 12.34, "n", kind="engine_step", process="front_end", module=module)
    print_blame(run_of(node, long))
    row = next(line for line in screen.getvalue().splitlines() if "import modules" in line)
    assert row.split()[:2] == ["12.34", "12.34"]
    assert ("█" in row) is has_bars
    assert len(row) <= columns
