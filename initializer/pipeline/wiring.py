"""Wiring the built-in observers and the telemetry to a bus: the one place that knows all of them.

What is not available on this machine is left out, with one warning: a start does not depend on being observed.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from phasebus.bus import Bus, BusStateError, Observer, subscribe_all
from phasebus.observers import JournalObserver, MetricsObserver, SpanObserver, StatusObserver, TimelineObserver
from phasebus.telemetry import Metrics, PortTakenError, RunIdentity, Telemetry, Timeline, redact
from phasebus.telemetry.journal import JournalWriter, journal_of
from phasebus.telemetry.service import Access

logger = logging.getLogger("phasebus.telemetry")

HOST, PORT = "127.0.0.1", 9464
_PORTS_TRIED = 20
_LARGEST_PORT = 65535


def observe_all(bus: Bus, telemetry: Telemetry) -> Path:
    """Subscribe the built-in observers to `bus`, with `telemetry` as their output; return the journal's path.

    An observer that cannot be made, such as the journal in a folder that cannot be written, is left out with a warning.
    """
    identity = telemetry.identity
    journal = journal_of(identity)
    makers: dict[str, Callable[[], Observer]] = {
        "the status": lambda: StatusObserver(telemetry.status, telemetry.metrics),
        "the timeline": lambda: TimelineObserver(telemetry.timeline),
        "the journal": lambda: JournalObserver(JournalWriter(journal, identity)),
        "metrics": lambda: MetricsObserver(telemetry.metrics, identity.trace),
        "spans": lambda: SpanObserver(telemetry.tracing, telemetry.relay),
    }
    for name, make in makers.items():
        try:
            bus.observe(None, make())
        except BusStateError:
            raise
        except Exception as error:  # noqa: BLE001  # no observer may keep a start from starting
            logger.warning("the observer for %s is left out: %s", name, redact(str(error) or type(error).__name__))
    telemetry.metrics.watch_bus(bus)
    return journal


def journal_observers(
    metrics: Metrics, timeline: Timeline, node: str, trace: str | None
) -> tuple[MetricsObserver, TimelineObserver]:
    """Return the observers of a live bus that observe the events of a node's journal as well.

    Args:
        metrics: Where its steps are counted and timed.
        timeline: Where the page finds its steps.
        node: The node's name.
        trace: The run's trace id, for exemplars.
    """
    return MetricsObserver(metrics, trace), TimelineObserver(timeline, node, recorded=True)


def available_telemetry(
    identity: RunIdentity | None = None,
    *,
    host: str = HOST,
    port: int | None = PORT,
    trace_url: str | None = None,
    access: Access | None = None,
    warn: Callable[[str], None] = logger.warning,
) -> Telemetry:
    """Return telemetry with an HTTP service, without the parts that are not available here.

    A taken port is replaced by the next free one; an address that cannot be had leaves the service out, and OTEL_*
    variables that cannot be used leave the export out.

    Args:
        identity: The run; a new one by default.
        host: The address of the service.
        port: Its port; 0 picks a free one, None leaves the service out.
        trace_url: Where the page links to for a trace.
        access: The host names and the token of the service.
        warn: Called with one message for each part that is missing.
    """
    made: list[Telemetry] = []

    def bind(candidate: int) -> int | None:
        made.append(_exporting_if_possible(identity, host, candidate, trace_url, access, warn))
        service = made[-1].service
        return None if service is None else service.port

    if port is None or available_port(bind, host, port, warn) is None:
        return _exporting_if_possible(identity, host, None, trace_url, access, warn)
    return made[-1]


def available_port(
    bind: Callable[[int], int | None], host: str, port: int | None, warn: Callable[[str], None]
) -> int | None:
    """Return the port that `bind` has bound: `port`, or else the next free one; None if there is none on `host`.

    Args:
        bind: Binds a port, or a free one for 0, and returns it.
        host: The address, for messages.
        port: The wanted port; None for no port.
        warn: Called with a message if it is not the wanted one.
    """
    if port is None:
        return None
    following = range(port + 1, min(port + _PORTS_TRIED, _LARGEST_PORT + 1)) if port else ()
    for candidate in (port, *following, 0):
        try:
            bound = bind(candidate)
        except PortTakenError as error:
            if not isinstance(error.__cause__, OSError) or error.__cause__.errno != errno.EADDRINUSE:
                warn(f"{error}; /metrics and the page are left out")
                return None
        else:
            if candidate != port:
                warn(f"port {port} on {host} is taken; metrics and the page are on port {bound}")
            return bound
    return None


def _exporting_if_possible(
    identity: RunIdentity | None,
    host: str,
    port: int | None,
    trace_url: str | None,
    access: Access | None,
    warn: Callable[[str], None],
) -> Telemetry:
    try:
        return Telemetry(identity, host=host, port=port, trace_url=trace_url, access=access)
    except PortTakenError:
        raise
    except Exception as error:  # noqa: BLE001  # no variable may keep a start from starting
        reason = redact(str(error) or type(error).__name__)
    # Outside of the handler: the error holds what was made before it, and that the port.
    kept = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("OTEL_")}
    try:
        telemetry = Telemetry(identity, host=host, port=port, trace_url=trace_url, access=access)
    finally:
        os.environ.update(kept)
    warn(f"spans are not exported: {reason}")
    return telemetry


@asynccontextmanager
async def watched(
    name: str, callbacks: Iterable[Any], telemetry: Telemetry | None = None, bus: Bus | None = None
) -> AsyncIterator[Bus]:
    """Yield an open bus with `callbacks` on it, for any process that has phases and no engine.

    Args:
        name: The name of a bus of its own.
        callbacks: Callbacks and observers, in the order they run.
        telemetry: Open telemetry for the observers' output; by default one of its own, without the HTTP service.
        bus: An open bus with its subscribers and observers; the callbacks are removed from it at the end. By default
            one of its own, with the built-in observers on it.
    """
    async with AsyncExitStack() as stack:
        if bus is None:
            if telemetry is None:
                telemetry = await stack.enter_async_context(available_telemetry(port=None))
            bus = await stack.enter_async_context(Bus(name, timing=True))
            observe_all(bus, telemetry)
        for each in subscribe_all(bus, callbacks):
            stack.enter_context(each)
        yield bus
