"""A bus that says what it is told to of its subscribers."""

from __future__ import annotations

from phasebus.bus import SubscriberStats


class CountingBus:
    def __init__(self, *stats: SubscriberStats) -> None:
        self.closed = False
        self._stats = stats

    def stats(self) -> tuple[SubscriberStats, ...]:
        return self._stats
