"""What the bus counts of its subscribers and observers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

SAMPLES = 512
"""How many of the latest durations are kept for the percentiles, of each subscriber."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriberStats:
    """The counts of one subscriber, or one observer, so far.

    Attributes:
        name: Its name.
        role: ``"subscriber"`` or ``"observer"``.
        calls: How often it was called.
        errors: How often it raised, timeouts included.
        timeouts: How often it took longer than its timeout.
        drops: How many events its buffer had no room for (observers only).
        p50: The median of its latest durations, in seconds; None unless the bus was made with ``timing=True``.
        p99: Their 99th percentile, in seconds; None likewise.
    """

    name: str
    role: str
    calls: int = 0
    errors: int = 0
    timeouts: int = 0
    drops: int = 0
    p50: float | None = None
    p99: float | None = None


class Tally:
    """The running counts behind a subscriber's `SubscriberStats`."""

    __slots__ = ("calls", "errors", "seconds", "timeouts")

    def __init__(self) -> None:
        self.calls = 0
        self.errors = 0
        self.timeouts = 0
        self.seconds: deque[float] = deque(maxlen=SAMPLES)

    def read(self, name: str, calls: int, seconds: list[float]) -> SubscriberStats:
        """Return the counts as they stand, with `calls` and their `seconds` that are not yet among them."""
        latest = [*self.seconds, *seconds][-SAMPLES:]
        return SubscriberStats(
            name=name,
            role="subscriber",
            calls=self.calls + calls,
            errors=self.errors,
            timeouts=self.timeouts,
            p50=quantile(latest, 0.5),
            p99=quantile(latest, 0.99),
        )


def quantile(values: Iterable[float], share: float) -> float | None:
    """Return the smallest of `values` that at least `share` of them do not exceed (nearest rank); None if empty."""
    ranked = sorted(values)
    if not ranked:
        return None
    return ranked[max(0, -(-int(share * 100) * len(ranked) // 100) - 1)]
