"""`Telemetry`: everything that carries what observers saw out of the process, opened and closed as one."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

import anyio.to_thread

from phasebus import __version__
from phasebus.telemetry.collector import Collector
from phasebus.telemetry.exporters import metric_pushes, span_queues
from phasebus.telemetry.metric_push import MetricPush
from phasebus.telemetry.metrics import Metrics
from phasebus.telemetry.otel.findings import Findings
from phasebus.telemetry.otel.settings import MetricSettings, TraceSettings
from phasebus.telemetry.proxies import without_proxy
from phasebus.telemetry.redaction import learn_environment, learn_secret
from phasebus.telemetry.relay import Relay, SpanForwarder
from phasebus.telemetry.run import RunIdentity
from phasebus.telemetry.service import OWN_TOKEN, Access, Server, build_app
from phasebus.telemetry.status import Status
from phasebus.telemetry.timeline import Timeline
from phasebus.telemetry.trace_losses import TraceLosses
from phasebus.telemetry.tracing import Tracing

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricsData

logger = logging.getLogger("phasebus.telemetry")


class Telemetry:
    """The telemetry of one run: ``async with Telemetry(port=9464) as telemetry``.

    The constructor binds the ports, so that a taken port is an error at once; entering the context starts the servers.
    Spans are exported to the exporters that the OTEL_* variables of `environment` name, if any; each variable with an
    invalid value is logged as a warning. With OTEL_METRICS_EXPORTER=otlp, the metrics are pushed to a collector, too.

    Args:
        identity: The run; a new one by default.
        host: The address of the service with /metrics, /livez and /readyz.
        port: Its port; 0 picks a free one; None starts no service.
        relay_host: The address that receives the engine's own spans; loopback, unless the engine has processes on other
            machines.
        trace_url: The URL of a trace for the links on the page, with ``{trace}`` and ``{span}`` in the places of their
            ids, such as ``http://localhost:16686/trace/{trace}?uiFind={span}``; by default PHASEBUS_TRACE_URL.
        access: The host names and the token of the service; by default PHASEBUS_HOSTS and PHASEBUS_TOKEN.
        environment: The variables: OTEL_*, TRACEPARENT, PHASEBUS_TRACE_URL.

    Raises:
        PortTakenError: The port cannot be bound.
    """

    def __init__(
        self,
        identity: RunIdentity | None = None,
        *,
        host: str = "127.0.0.1",
        port: int | None = 9464,
        relay_host: str = "127.0.0.1",
        trace_url: str | None = None,
        access: Access | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        learn_environment(environment)
        self.identity = identity or RunIdentity.fresh(environment=environment)
        findings = Findings()
        settings = TraceSettings.from_environment(environment, findings)
        self.collector = collector = Collector.from_environment(environment, settings, findings)
        self.status = Status()
        self.metrics = Metrics(__version__)
        self.timeline = Timeline(self.identity, trace_url or environment.get("PHASEBUS_TRACE_URL") or None)
        app = partial(build_app, self.metrics, self.status, self.timeline)
        access = (access or Access(own_token=OWN_TOKEN)).or_else(Access.from_environment(environment))
        if access.credential is not None:
            learn_secret(access.credential)
        self.service = None if port is None else Server(app, host, port, access=access)
        self.tracing = Tracing(
            self.identity,
            version=__version__,
            queues=span_queues(settings, collector, findings),
            settings=settings,
            environment=environment,
        )
        pushed = MetricSettings.from_environment(environment, findings)
        metric_collector = Collector.from_environment(environment, pushed, findings)
        collect = partial(_metrics_data, self.metrics, self.tracing, time.time_ns())
        self._pushes = metric_pushes(pushed, metric_collector, findings, collect)
        self.metrics.describe_target(self.tracing.resource.attributes)
        self.relay = Relay(SpanForwarder(self.tracing), relay_host)
        self.metrics.registry.register(TraceLosses(self.tracing, self.relay))
        self._sdk_variables = {**findings.repairs, "OTEL_TRACES_SAMPLER": settings.engine_sampler}
        for problem in findings.problems:
            logger.warning("%s", problem)

    def engine_environment(self, environment: Mapping[str, str] = os.environ) -> Mapping[str, str]:
        """Return what makes a process of the engine export every span of its start to the relay; the relay receives now.

        Source: OpenTelemetry specification, "Environment Variable Specification".

        Args:
            environment: What the process is started with otherwise.
        """
        return {
            **self._sdk_variables,
            **self.relay.environment(),
            **without_proxy(environment, self.relay.host),
        }

    async def __aenter__(self) -> Self:
        if self.service is not None:
            self.service.start()
        for push in self._pushes:
            push.start()
        return self

    def mark_as_stopping(self) -> None:
        """Report the start as not ready: the process ends, running requests finish, and no more should arrive."""
        self.status.stop()
        self.metrics.ready.set(0)

    def push_metrics(self) -> None:
        """Push the metrics now, where they are pushed at all, and return at once."""
        for push in self._pushes:
            push.push_now()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.timeline.close()
        with anyio.CancelScope(shield=True):  # every part has a deadline of its own
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_close, self.relay, self.tracing)  # the relay's last spans are exported, too
                for push in self._pushes:
                    tasks.start_soon(_close, push)
                if self.service is not None:
                    tasks.start_soon(_close, self.service)


def _metrics_data(metrics: Metrics, tracing: Tracing, since_ns: int) -> MetricsData:
    from phasebus.telemetry.otlp_metrics import metrics_data  # imports more of the SDK than spans need

    return metrics_data(metrics.registry, tracing.resource, __version__, since_ns)


async def _close(*parts: Relay | Tracing | MetricPush | Server) -> None:
    for part in parts:
        await anyio.to_thread.run_sync(part.close)
