"""What can go wrong with a download: one error for people, and three that never leave this room."""

from __future__ import annotations

from phasebus.bus import PhasebusError


class DownloadError(PhasebusError):
    """Raised when a model is not there, not whole, or cannot be fetched."""


class TransferError(Exception):
    """Raised when a try failed and another one may succeed: the connection broke, the server is busy, bytes were missing.

    Its message holds no address, so nothing of a signed one.

    Args:
        message: What happened.
        after: How long the server asked to be left alone, in seconds; None if it did not ask.
    """

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


class CorruptError(TransferError):
    """Raised when what came is not what was announced: the file has to be fetched anew, from its first byte."""


class StoppedError(Exception):
    """Raised in a worker thread whose transfer was stopped from outside."""
