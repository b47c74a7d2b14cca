"""What the lines of a journal look like."""

from __future__ import annotations

from typing import Final

from phasebus.bus import PhasebusError

FORMAT: Final = 1
"""The version of the format: raised when a reader of the one before could no longer make sense of a file."""

HEADER: Final = "JournalOpened"
FOOTER: Final = "JournalClosed"


class JournalError(PhasebusError):
    """Raised when a journal is not there, is none, cannot be created, or is of a version that this phasebus cannot read."""
