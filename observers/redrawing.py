"""Whether lines that were written to an output can be drawn over."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rich.console import Console

_FORCING: Final = ("FORCE_COLOR", "TTY_COMPATIBLE")
"""Variables by which rich takes any output for a terminal. In CI they ask for colours in a file."""


def can_redraw(console: Console, environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether a live display is drawn on `console`: it is a terminal that moves its cursor.

    Elsewhere a live display would leave each of its states behind, or nothing until it ends. A screen reader would read all
    of them out: ACCESSIBLE=1, as other command-line tools know it, asks for lines.

    Args:
        console: The output.
        environment: The environment variables.
    """
    if not console.is_interactive or environment.get("ACCESSIBLE", "").lower() not in ("", "0", "false"):
        return False
    return not any(name in environment for name in _FORCING) or console.file.isatty()
