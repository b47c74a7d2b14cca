"""The errors of downloads: `DownloadError` reaches the caller, the others end inside this package."""

from __future__ import annotations

from phasebus.bus import PhasebusError


class DownloadError(PhasebusError):
    """Raised when a model does not exist, is incomplete, or cannot be downloaded; a retry would not help."""


class UnavailableError(DownloadError):
    """Raised when a source could not be asked what it has: it is offline, or all attempts failed."""


class TransferError(Exception):
    """Raised when an attempt failed that may succeed when retried: a broken connection, a busy server, missing bytes.

    Args:
        message: What failed, without any address: it may be signed.
        after: The pause that the server asked for, in seconds; None if it did not.
    """

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


class CorruptError(TransferError):
    """Raised when the received bytes are not those the source announced: the file is fetched from its first byte."""


class StoppedError(Exception):
    """Raised in a worker thread whose transfer was stopped."""
