"""What buses count of their subscribers and observers, as metrics that are read at every scrape."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Protocol

from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from phasebus.bus import SubscriberStats
from phasebus.telemetry import names
from phasebus.telemetry.families import Family

Counts = dict[tuple[str, str], tuple[int, int]]
"""Errors and drops, by the name and the role of the subscriber."""


class CountingBus(Protocol):
    """A bus, as far as its counts go."""

    closed: bool

    def stats(self) -> Sequence[SubscriberStats]:
        """Return the counts of every subscriber and observer so far."""


class BusCounts(Collector):
    """The sums over all watched buses."""

    def __init__(self) -> None:
        self._buses: list[CountingBus] = []
        self._of_closed: Counts = {}
        self._lock = threading.Lock()

    def watch(self, bus: CountingBus) -> None:
        """Include one more bus, once; of those that are closed only the counts are kept."""
        with self._lock:
            if any(each is bus for each in self._buses):
                return
            for closed in [each for each in self._buses if each.closed]:
                self._buses.remove(closed)
                _add(self._of_closed, closed.stats())
            self._buses.append(bus)

    def collect(self) -> Iterable[Metric]:
        """Return the present counts."""
        with self._lock:
            counts, buses = dict(self._of_closed), list(self._buses)
        if not buses:
            return ()
        for bus in buses:
            _add(counts, bus.stats())
        errors = _family(names.SUBSCRIBER_ERRORS)
        drops = _family(names.EVENTS_DROPPED)
        for (name, role), (failed, dropped) in counts.items():
            errors.add_metric([name, role], failed)
            if role == "observer":
                drops.add_metric([name], dropped)
        return errors, drops

    def describe(self) -> Iterable[Metric]:
        """Return nothing: the families are known only when they are collected."""
        return ()


def _family(family: Family) -> CounterMetricFamily:
    return CounterMetricFamily(*family.header, labels=family.labels)


def _add(counts: Counts, stats: Sequence[SubscriberStats]) -> None:
    for each in stats:
        errors, drops = counts.get((each.name, each.role), (0, 0))
        counts[each.name, each.role] = errors + each.errors, drops + each.drops
