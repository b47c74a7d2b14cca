"""How far the clock of another machine is from the one of this machine."""

from __future__ import annotations

from typing import Final

TOLERATED_SECONDS: Final = 1.0
"""The largest difference that is not reported, in seconds: clocks that are synchronized differ by milliseconds."""


def clock_offset_seconds(sent_ns: int, remote_ns: int, received_ns: int) -> float | None:
    """Return how far a remote clock is ahead, in seconds; None if the difference is tolerated or cannot be known.

    Args:
        sent_ns: When the remote clock was asked for, on the local clock, in nanoseconds since the epoch.
        remote_ns: What the remote clock showed.
        received_ns: When the answer arrived, on the local clock.

    Source: Cristian's algorithm: the answer was made between the two local readings, so half of their distance is the error.
    """
    offset_ns = remote_ns - (sent_ns + received_ns) // 2
    error_ns = max(0, received_ns - sent_ns) / 2
    return round(offset_ns / 1e9, 3) if abs(offset_ns) - error_ns > TOLERATED_SECONDS * 1e9 else None
