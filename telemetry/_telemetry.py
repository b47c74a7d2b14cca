"""`Telemetry`: all that carries what observers saw out of the process, opened and closed as one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from types import TracebackType
from typing import Self

import anyio.to_thread

from phasebus import __version__
from phasebus.telemetry.collector import Collector
from phasebus.telemetry.metrics import Metrics
from phasebus.telemetry.redaction import learn_environment
from phasebus.telemetry.relay import Forwarder, IterationMetrics, Relay
from phasebus.telemetry.run import RunIdentity
from phasebus.telemetry.service import Server, build_app
from phasebus.telemetry.status import Status
from phasebus.telemetry.timeline import Timeline
from phasebus.telemetry.tracing import Tracing


class Telemetry:
    """The telemetry of one run: ``async with Telemetry(port=9464) as telemetry``.

    Making it binds its ports, so that one that is taken shows at once; opening it starts to answer. Spans go to the
    collector that the OTEL_* variables of `environment` name, and nowhere if they name none.

    Args:
        identity: The run; a new one by default.
        host: Where the service with /metrics, /livez and /readyz listens.
        port: Its port; 0 picks a free one; None leaves the service out.
        relay_host: Where the engine's own spans are received; loopback, unless it has processes on other machines.
        trace_url: Where the page sends people who want to see a trace, with ``{trace}`` and ``{span}`` in the places of
            their ids, such as ``http://localhost:16686/trace/{trace}?uiFind={span}``; by default PHASEBUS_TRACE_URL.
        environment: Where the OTEL_* variables, TRACEPARENT and PHASEBUS_TRACE_URL are read from.

    Raises:
        PortTakenError: The port cannot be had.
        CollectorError: The OTEL_* variables ask for something that cannot be had.
    """

    def __init__(
        self,
        identity: RunIdentity | None = None,
        *,
        host: str = "127.0.0.1",
        port: int | None = 9464,
        relay_host: str = "127.0.0.1",
        trace_url: str | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        learn_environment(environment)
        self.identity = identity or RunIdentity.fresh(environment=environment)
        collector = Collector.from_environment(environment)
        self.status = Status()
        self.metrics = Metrics(__version__)
        self.timeline = Timeline(self.identity, trace_url or environment.get("PHASEBUS_TRACE_URL") or None)
        app = partial(build_app, self.metrics, self.status, self.timeline)
        self.service = None if port is None else Server(app, host, port)
        self.relay = Relay(Forwarder(collector), relay_host)
        iterations = IterationMetrics()
        self.metrics.registry.register(iterations)
        self.relay.listen(iterations.take)
        self.tracing = (
            Tracing(self.identity, None, version=__version__)
            if collector is None
            else Tracing(
                self.identity, collector.exporter(), version=__version__, wait_for_flush=collector.wait_for_flush
            )
        )

    async def __aenter__(self) -> Self:
        if self.service is not None:
            self.service.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.timeline.close()
        with anyio.CancelScope(shield=True):  # every part has a deadline of its own
            async with anyio.create_task_group() as tasks:
                for part in (self.relay, self.tracing, self.service):
                    if part is not None:
                        tasks.start_soon(_close, part)


async def _close(part: Relay | Tracing | Server) -> None:
    await anyio.to_thread.run_sync(part.close)
