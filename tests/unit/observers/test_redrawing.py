"""Where a live display is drawn: on terminals that move their cursor, and not in files that are to have colours."""

from __future__ import annotations

import io
from collections.abc import Mapping

import pytest
from rich.console import Console

from phasebus.observers.redrawing import can_redraw


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("file", "environment", "expected"),
    [
        (Screen(), {}, True),
        (Screen(), {"FORCE_COLOR": "1"}, True),
        (io.StringIO(), {}, False),
        (io.StringIO(), {"FORCE_COLOR": "1"}, False),
        (io.StringIO(), {"TTY_COMPATIBLE": "1"}, False),
        (Screen(), {"TERM": "dumb"}, False),
        (Screen(), {"ACCESSIBLE": "1"}, False),
        (Screen(), {"ACCESSIBLE": "0"}, True),
        (Screen(), {"ACCESSIBLE": ""}, True),
    ],
)
def test_live_display_is_drawn_on_a_terminal_that_can_redraw(
    file: io.StringIO, environment: Mapping[str, str], expected: bool
) -> None:
    environment = {"TERM": "xterm", **environment}
    console = Console(file=file, _environ=environment)
    assert can_redraw(console, environment) is expected
