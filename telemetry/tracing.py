"""Spans out of steps: a tracer provider of our own, whose span ids are the steps' ids."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, TraceFlags

from phasebus.telemetry.collector import SHUTDOWN_FLUSH_SECONDS
from phasebus.telemetry.redaction import redact
from phasebus.telemetry.run import RunIdentity

logger = logging.getLogger("phasebus.telemetry")

AttributeValue = str | int | float | bool


class Tracing:
    """Makes spans of one run and exports them; never the process's global provider, which vLLM sets.

    Args:
        identity: Whose spans they are.
        exporter: Where they go; None keeps them to nobody.
        version: What is written into the resource as the version of the service.
        delay: How long a span may wait for others before it is exported, in seconds.
        wait_for_flush: Waits at the end for the thread that exports what is left, for as long as it finds right.
    """

    def __init__(
        self,
        identity: RunIdentity,
        exporter: SpanExporter | None,
        *,
        version: str = "",
        delay: float = 0.5,
        wait_for_flush: Callable[[threading.Thread], None] = lambda thread: thread.join(SHUTDOWN_FLUSH_SECONDS),
    ) -> None:
        self._identity = identity
        self._wait_for_flush = wait_for_flush
        self._ids = _StepIds()
        resource = Resource.create(
            {
                "service.name": os.environ.get("OTEL_SERVICE_NAME", "phasebus"),
                "service.version": version,
                "service.instance.id": identity.node,
                "phasebus.run": identity.run,
            }
        )
        self._provider = TracerProvider(resource=resource, id_generator=self._ids, shutdown_on_exit=False)
        self._exporter = None if exporter is None else _TellsOnce(exporter)
        if self._exporter is not None:
            # what the exporter says of every try is left to those who have asked for OpenTelemetry's log
            logging.getLogger("opentelemetry").addHandler(logging.NullHandler())
            self._provider.add_span_processor(
                BatchSpanProcessor(self._exporter, schedule_delay_millis=int(delay * 1000))
            )
        self._tracer = self._provider.get_tracer("phasebus", version)

    def start(
        self,
        name: str,
        *,
        step: str,
        parent: str | None,
        time_ns: int,
        attributes: Mapping[str, AttributeValue],
        trace_id: str | None = None,
    ) -> Span:
        """Return the running span of the step with the id `step`; its parent is the step `parent`.

        Args:
            name: What the span is called.
            step: The id it gets, 16 hexadecimal digits.
            parent: The id of its parent; None hangs it under what caused the run, if anything did.
            time_ns: When it began, in nanoseconds since the epoch.
            attributes: Its attributes, free of secrets.
            trace_id: Another trace than the run's that it belongs to, 32 hexadecimal digits.
        """
        if trace_id is None:
            parent = parent or self._identity.parent
        trace_number = int(trace_id or self._identity.trace, 16)
        context = Context()
        if parent is not None:
            outer = SpanContext(trace_number, int(parent, 16), True, TraceFlags(TraceFlags.SAMPLED))
            context = trace.set_span_in_context(NonRecordingSpan(outer), context)
        with self._ids.use(int(step, 16), trace_number):
            return self._tracer.start_span(name, context, attributes=dict(attributes), start_time=time_ns)

    def close(self) -> bool:
        """Export what is left, for as long as `wait_for_flush` waits; return whether that was done.

        A collector that is away would hold up the exporter's own shutdown for much longer, so it is left to a thread.
        """
        thread = threading.Thread(target=self._provider.shutdown, name="phasebus tracing shutdown", daemon=True)
        thread.start()
        self._wait_for_flush(thread)
        if thread.is_alive() and self._exporter is not None:
            self._exporter.tell("it did not take the last ones in time")
        return not thread.is_alive()


class _StepIds(IdGenerator):
    """Gives each span the id of its step, in the trace it is told."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = 0
        self._trace_id = 0

    def use(self, span_id: int, trace_id: int) -> _StepIds:
        """Return a context manager within which, in one thread at a time, these ids are given out."""
        self._lock.acquire()
        self._next, self._trace_id = span_id, trace_id
        return self

    def __enter__(self) -> None:
        """Begin to give the id out."""

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def generate_span_id(self) -> int:
        """Return the id of the step whose span is being started."""
        return self._next

    def generate_trace_id(self) -> int:
        """Return the id of the trace that the span belongs to."""
        return self._trace_id


class _TellsOnce(SpanExporter):
    """An exporter whose first failure is one line in the log, and whose others are silent."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._told = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export `spans`."""
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # noqa: BLE001  # whatever it is, it must not reach the start-up
            return self._failed(str(error))
        return result if result is SpanExportResult.SUCCESS else self._failed("it was not taken")

    def shutdown(self) -> None:
        """Close the exporter."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Export what the exporter holds back."""
        return self._exporter.force_flush(timeout_millis)

    def tell(self, why: str) -> None:
        """Say that spans are not exported; once."""
        if not self._told:
            self._told = True
            endpoint = redact(str(getattr(self._exporter, "_endpoint", "the collector")))
            logger.warning("spans cannot be exported to %s (%s); the start-up goes on without", endpoint, redact(why))

    def _failed(self, why: str) -> SpanExportResult:
        self.tell(why)
        return SpanExportResult.FAILURE
