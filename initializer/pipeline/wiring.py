"""Wiring the built-in observers and the telemetry to a bus; the only module that imports all of them.

Parts that are not available on this machine are left out with a warning each: no start fails because of an observer.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from phasebus.bus import Bus, BusStateError, Observer, subscribe_all
from phasebus.observers import (
    HistoryObserver,
    JournalObserver,
    MetricsObserver,
    SpanObserver,
    StatusObserver,
    TimelineObserver,
    Watchdog,
)
from phasebus.telemetry import Metrics, PortTakenError, RunIdentity, Telemetry, Timeline, redact
from phasebus.telemetry.journal import JournalWriter, journal_of
from phasebus.telemetry.service import Access
from phasebus.telemetry.stuck import StuckSteps

T = TypeVar("T")

logger = logging.getLogger("phasebus.telemetry")

HOST, PORT = "127.0.0.1", 9464
_PORTS_TRIED = 20
_LARGEST_PORT = 65535


def observe_all(bus: Bus, telemetry: Telemetry) -> Path:
    """Subscribe the built-in observers to `bus`, with `telemetry` as their output; return the journal's path.

    An observer that cannot be created, such as the journal in a read-only folder, is left out with a warning.
    """
    identity = telemetry.identity
    journal = journal_of(identity)
    reports: list[Callable[[StuckSteps], object]] = [
        telemetry.status.set_stuck,
        lambda stuck: telemetry.timeline.set_stuck(stuck.plain()),
    ]

    def keep(observer: T, report: Callable[[T], Callable[[StuckSteps], object]]) -> T:
        reports.append(report(observer))
        return observer

    makers: dict[str, Callable[[], Observer]] = {
        "the status": lambda: StatusObserver(telemetry.status, telemetry.metrics),
        "the timeline": lambda: TimelineObserver(telemetry.timeline),
        "the journal": lambda: keep(JournalObserver(JournalWriter(journal, identity)), lambda made: made.record),
        "metrics": lambda: keep(MetricsObserver(telemetry.metrics, identity.trace), lambda made: made.record_stuck),
        "spans": lambda: keep(SpanObserver(telemetry.tracing), lambda made: made.record_stuck),
        "the history": lambda: HistoryObserver(identity, telemetry.timeline, telemetry.metrics),
        "steps that are stuck": lambda: Watchdog(
            level=logging.INFO,
            report=reports,
            logs=(journal.with_suffix(".engine.log"),),
            usual=lambda event: telemetry.timeline.usual_of(event.step),
        ),
    }
    for name, make in makers.items():
        try:
            bus.observe(None, make())
            if name == "the journal":
                telemetry.timeline.journal = journal
        except BusStateError:
            raise
        except Exception as error:  # noqa: BLE001  # no observer may prevent a start
            logger.warning("the observer for %s is left out: %s", name, redact(str(error) or type(error).__name__))
    telemetry.metrics.watch_bus(bus)
    return journal


def journal_observers(
    metrics: Metrics, timeline: Timeline, node: str, trace: str | None
) -> tuple[MetricsObserver, TimelineObserver]:
    """Return the observers for the events of a node's journal; a live bus has observers of the same classes.

    Args:
        metrics: The metrics that count and time the node's steps.
        timeline: The timeline that the page reads the node's steps from.
        node: The node's name.
        trace: The run's trace id, for exemplars.
    """
    return MetricsObserver(metrics, trace), TimelineObserver(timeline, node, recorded=True)


def available_telemetry(
    identity: RunIdentity | None = None,
    *,
    host: str = HOST,
    port: int | None = PORT,
    relay_host: str = HOST,
    trace_url: str | None = None,
    access: Access | None = None,
    warn: Callable[[str], None] = logger.warning,
) -> Telemetry:
    """Return telemetry with an HTTP service, without the parts that are not available here.

    A taken port is replaced by the next free one. Without a usable address there is no service, and with invalid OTEL_*
    variables there is no export of spans.

    Args:
        identity: The run; a new one by default.
        host: The address of the service.
        port: Its port; 0 picks a free one, None leaves the service out.
        relay_host: The address that the engine's processes report to; loopback if this machine does not have it.
        trace_url: The URL of a trace, for the links on the page.
        access: The host names and the token of the service.
        warn: Called with one message for each part that is missing.
    """
    made: list[Telemetry] = []
    relay_host = _available_relay_host(relay_host, warn)

    def bind(candidate: int) -> int | None:
        made.append(_exporting_if_possible(identity, host, candidate, relay_host, trace_url, access, warn))
        service = made[-1].service
        return None if service is None else service.port

    if port is None or available_port(bind, host, port, warn) is None:
        return _exporting_if_possible(identity, host, None, relay_host, trace_url, access, warn)
    return made[-1]


def available_port(
    bind: Callable[[int], int | None], host: str, port: int | None, warn: Callable[[str], None]
) -> int | None:
    """Bind `port`, or else the next free one, and return it; None if no port can be bound on `host`.

    Args:
        bind: Binds the given port, or a free one for 0, and returns its number.
        host: The address, for messages.
        port: The wanted port; None for no port.
        warn: Called with a message if `port` cannot be bound.
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


def _available_relay_host(host: str, warn: Callable[[str], None]) -> str:
    """Return `host` if this machine has that address, else loopback: an address that others use may not be its own."""
    if host == HOST:
        return host
    try:
        with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            return host
    except OSError as error:
        reason = error.strerror or error
        warn(f"the engine's processes on other machines cannot report their steps: no relay on {host}: {reason}")
        return HOST


def _exporting_if_possible(
    identity: RunIdentity | None,
    host: str,
    port: int | None,
    relay_host: str,
    trace_url: str | None,
    access: Access | None,
    warn: Callable[[str], None],
) -> Telemetry:
    make = partial(Telemetry, identity, host=host, port=port, relay_host=relay_host, trace_url=trace_url, access=access)
    try:
        return make()
    except PortTakenError:
        raise
    except Exception as error:  # noqa: BLE001  # no variable may prevent a start
        reason = redact(str(error) or type(error).__name__)
    # Outside the handler: the error's traceback refers to the first Telemetry, which would keep the port bound.
    kept = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("OTEL_")}
    try:
        telemetry = make()
    finally:
        os.environ.update(kept)
    warn(f"spans are not exported: {reason}")
    return telemetry


@asynccontextmanager
async def watched(
    name: str, callbacks: Iterable[Any], telemetry: Telemetry | None = None, bus: Bus | None = None
) -> AsyncIterator[Bus]:
    """Yield an open bus with `callbacks` subscribed, for any process with phases and without an engine.

    Args:
        name: The name of the bus, if a new one is opened.
        callbacks: Callbacks and observers, in the order they run.
        telemetry: An open `Telemetry` for the observers; by default a new one without the HTTP service.
        bus: An open bus; the callbacks are unsubscribed from it at the end. By default a new one with the built-in
            observers.
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
