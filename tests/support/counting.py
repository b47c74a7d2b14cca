"""A bus with given subscriber statistics."""

from __future__ import annotations

from phasebus.bus import SubscriberStats


class CountingBus:
    def __init__(self, *stats: SubscriberStats) -> None:
        self.closed = False
        self._stats = stats

    def stats(self) -> tuple[SubscriberStats, ...]:
        return self._stats
