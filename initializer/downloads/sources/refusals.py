"""What an HTTP status means that brings no file: an end, or a reason to try again."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import Final

from phasebus.initializer.downloads.errors import DownloadError, TransferError

_WORTH_RETRYING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


def refusal(status: int, retry_after: str | None, who: str, *, signed: bool = False) -> Exception:
    """Return the error for an answer with an HTTP `status` that brings no file.

    Args:
        status: The status.
        retry_after: The answer's Retry-After header.
        who: Who answered, for the message.
        signed: Whether the address was one somebody else had signed: it may have run out, and a new one be had.
    """
    if status in _WORTH_RETRYING or (signed and status in {400, 401, 403}):
        return TransferError(f"{who} answered {status}", _seconds(retry_after or ""))
    if status in {401, 403}:
        return DownloadError(f"{who} refuses access (HTTP {status}); give credentials that may read it")
    if status in {404, 410}:
        return DownloadError(f"{who} has no such file (HTTP {status})")
    return DownloadError(f"{who} answered {status}, which is not worth trying again")


def _seconds(value: str) -> float | None:
    """Return the seconds of a Retry-After header, which may also be a date; None if it is neither."""
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return None
