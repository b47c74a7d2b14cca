"""Putting the built-in observers on a bus: the one place that knows all of them."""

from __future__ import annotations

from pathlib import Path

from phasebus.bus import Bus
from phasebus.observers import JournalObserver, MetricsObserver, SpanObserver, StatusObserver, TimelineObserver
from phasebus.telemetry import Telemetry
from phasebus.telemetry.journal import JournalWriter, journal_of


def observe_all(bus: Bus, telemetry: Telemetry) -> Path:
    """Have the built-in observers watch `bus` and hand what they see to `telemetry`; return the journal's path.

    Raises:
        JournalError: The journal cannot be created.
    """
    identity = telemetry.identity
    journal = journal_of(identity)
    for observer in (
        StatusObserver(telemetry.status, telemetry.metrics),
        TimelineObserver(telemetry.timeline),
        JournalObserver(JournalWriter(journal, identity)),
        MetricsObserver(telemetry.metrics, identity.trace),
        SpanObserver(telemetry.tracing),
    ):
        bus.observe(None, observer)
    telemetry.metrics.watch_bus(bus.stats)
    return journal
