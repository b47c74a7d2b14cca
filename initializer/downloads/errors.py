"""The errors of downloads. Callers of `fetch` get a `DownloadError`; the others are internal to this package."""

from __future__ import annotations

from phasebus.bus import PhasebusError


class DownloadError(PhasebusError):
    """Raised when a model does not exist, is incomplete, or cannot be downloaded; a retry would not help."""


class UnavailableError(DownloadError):
    """Raised when the files of a source could not be listed: it is offline, or all attempts failed."""


class TransferError(Exception):
    """Raised when an attempt failed that may succeed when retried: a broken connection, a busy server, missing bytes.

    Args:
        message: The failure, without any address, because an address may be signed.
        after: The pause that the server requested, in seconds; None without one.
        is_busy: Whether the server refused the request because it has too many.
    """

    def __init__(self, message: str, after: float | None = None, *, is_busy: bool = False) -> None:
        super().__init__(message)
        self.after = after
        self.is_busy = is_busy


class CorruptError(TransferError):
    """Raised when the received bytes do not match the listing. The file is fetched again from its first byte."""


class StoppedError(Exception):
    """Raised in a worker thread whose transfer was stopped."""
