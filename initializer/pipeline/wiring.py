"""Putting the built-in observers on a bus: the one place that knows all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from phasebus.bus import Bus, subscribe_all
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
    telemetry.metrics.watch_bus(bus)
    return journal


@asynccontextmanager
async def watched(
    name: str, callbacks: Iterable[Any], telemetry: Telemetry | None = None, bus: Bus | None = None
) -> AsyncIterator[Bus]:
    """Give an open bus with `callbacks` on it, for any process that has phases and no engine.

    Args:
        name: What a bus of its own is called.
        callbacks: Callbacks and observers, in the order they run.
        telemetry: Open telemetry that is to carry what is seen; by default one of its own, without the HTTP service.
        bus: An open bus with whatever is on it; the callbacks leave it at the end. By default one of its own, with the
            built-in observers on it.
    """
    async with AsyncExitStack() as stack:
        if bus is None:
            if telemetry is None:
                telemetry = await stack.enter_async_context(Telemetry(port=None))
            bus = await stack.enter_async_context(Bus(name, timing=True))
            observe_all(bus, telemetry)
        for each in subscribe_all(bus, callbacks):
            stack.enter_context(each)
        yield bus
