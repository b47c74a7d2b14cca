"""What the lines of a journal look like."""

from __future__ import annotations

from typing import Final

from phasebus.bus import PhasebusError

FORMAT: Final = 1
"""The version of the format: raised when a reader of the one before could no longer make sense of a file."""

MAX_LINE_BYTES: Final = 64 * 1024
"""A longer line loses its attributes, so that readers and the hub can bound what they hold, in bytes."""

HEADER: Final = "JournalOpened"
FOOTER: Final = "JournalClosed"


class JournalError(PhasebusError):
    """Raised when a journal is missing, damaged, cannot be created, or has a format that this phasebus cannot read."""
