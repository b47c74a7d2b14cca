"""Spans out of steps: a tracer provider of our own, whose span ids are the steps' ids."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from phasebus.telemetry.otel import (  # isort: skip
    SpanBatches,
    SpanQueue,
    TraceSampler,
    TraceSettings,
    process_resource,
    run_resource,
)
from phasebus.telemetry.otel.sdk import without_own_metrics  # isort: skip
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, TraceFlags, Tracer, TraceState
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from phasebus.telemetry.collector import SHUTDOWN_FLUSH_SECONDS
from phasebus.telemetry.run import RunIdentity, parse_traceparent
from phasebus.telemetry.switches import is_on

_PROPAGATOR = TraceContextTextMapPropagator()
AttributeValue = str | int | float | bool


class Tracing:
    """Makes spans of one run and exports them; never the process's global provider, which vLLM sets.

    Args:
        identity: The run.
        exporter: Where spans go; None makes none.
        version: The version of phasebus, for the resource.
        delay: How long a span may wait for others before it is exported, in seconds.
        wait_for_flush: Waits at the end for the thread that exports what is left, and returns after a deadline.
        queues: The exporters' queues, in place of `exporter`, `delay` and `wait_for_flush`.
        settings: What the OTEL_* variables say: which traces are kept, the limits of spans, the resource.
        environment: Where TRACESTATE and the variables of Kubernetes' downward API are read from.
    """

    def __init__(
        self,
        identity: RunIdentity,
        exporter: SpanExporter | None = None,
        *,
        version: str = "",
        delay: float = SpanBatches().delay,
        wait_for_flush: Callable[[threading.Thread], None] = lambda thread: thread.join(SHUTDOWN_FLUSH_SECONDS),
        queues: Sequence[SpanQueue] = (),
        settings: TraceSettings | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        settings = settings or TraceSettings.from_environment(environment)
        self._identity = identity
        self._sampler = TraceSampler(settings)
        self._keeps_run = self._sampler.keeps(int(identity.trace, 16), identity.parent_sampled)
        self._state = _state_of_caller(environment, identity.trace)
        self._queues = list(queues)
        if exporter is not None:
            self._queues.append(SpanQueue(exporter, "the collector", SpanBatches(delay=delay), wait_for_flush))
        self._ids = _StepIds()
        self.resource: Resource = run_resource(identity, settings.resource, version, environment)
        self._exports_pending = is_on(environment.get("PHASEBUS_PENDING_SPANS"))
        self._limits = SpanLimits(**settings.limits)
        self._version = version
        self._tracers: dict[tuple[tuple[str, AttributeValue], ...], Tracer] = {}
        if self._queues:
            # the exporter's own messages about each attempt appear only where OpenTelemetry's log is configured
            logging.getLogger("opentelemetry").addHandler(logging.NullHandler())

    @property
    def exports(self) -> bool:
        """Whether spans are exported at all."""
        return bool(self._queues)

    @property
    def exports_pending(self) -> bool:
        """Whether a step is exported when it starts, too, by PHASEBUS_PENDING_SPANS."""
        return self._exports_pending and bool(self._queues)

    @property
    def keeps_run(self) -> bool:
        """Whether the trace of the run is exported, by the sampler."""
        return self._keeps_run

    @property
    def dropped(self) -> int:
        """How many spans have not been exported, because there was no room or the exporter refused them."""
        return sum(queue.dropped for queue in self._queues)

    def start(
        self,
        name: str,
        *,
        step: str,
        parent: str | None,
        time_ns: int,
        attributes: Mapping[str, AttributeValue],
        trace_id: str | None = None,
        parent_sampled: bool | None = None,
        process: Mapping[str, AttributeValue] | None = None,
        links: Sequence[Link] = (),
    ) -> Span:
        """Return the running span of the step with the id `step`; its parent is the step `parent`.

        A span of a trace that is not exported records nothing.

        Args:
            name: What the span is called.
            step: The id it gets, 16 hexadecimal digits.
            parent: The id of its parent; None hangs it under what caused the run, if anything did.
            time_ns: When it began, in nanoseconds since the epoch.
            attributes: Its attributes, free of secrets.
            trace_id: Another trace than the run's that it belongs to, 32 hexadecimal digits.
            parent_sampled: With `trace_id`, whether the parent in another program is sampled; None if there is none.
            process: The resource attributes of the process that ran it; None if it is this one.
            links: The spans that it is related to.
        """
        foreign = _number(trace_id, digits=32)
        number = foreign or int(self._identity.trace, 16)
        keeps = self._sampler.keeps(number, parent_sampled) if foreign else self._keeps_run
        span_id = int(step, 16)
        if not keeps or not self._queues:
            return NonRecordingSpan(SpanContext(number, span_id, False))
        if not foreign:
            parent = parent or self._identity.parent
        context = Context()
        if outer_id := _number(parent, digits=16):
            state = None if foreign else self._state
            outer = SpanContext(number, outer_id, True, TraceFlags(TraceFlags.SAMPLED), state)
            context = trace.set_span_in_context(NonRecordingSpan(outer), context)
        with self._ids.use(span_id, number):
            return self._tracer_of(process).start_span(
                name, context, attributes=dict(attributes), links=links, start_time=time_ns
            )

    def _tracer_of(self, process: Mapping[str, AttributeValue] | None) -> Tracer:
        """Return the tracer for the spans of a process of the run."""
        key = tuple(sorted((process or {}).items()))
        tracer = self._tracers.get(key)
        if tracer is None:
            resource = self.resource
            if process is not None:
                local = process.get("host.name", resource.attributes.get("host.name")) == resource.attributes.get(
                    "host.name"
                )
                resource = process_resource(process, resource, local=local)
            provider = TracerProvider(
                resource=resource,
                id_generator=self._ids,
                sampler=ALWAYS_ON,  # which traces are exported is decided before a span is made
                span_limits=self._limits,
                shutdown_on_exit=False,
                **without_own_metrics(TracerProvider),
            )
            if self._queues:
                provider.add_span_processor(_ToQueues(self._queues))
            tracer = self._tracers[key] = provider.get_tracer("phasebus", self._version)
        return tracer

    def forward(self, spans: Iterable[ReadableSpan]) -> None:
        """Export spans that another process of the run has made, as far as their traces are kept."""
        run = int(self._identity.trace, 16)
        kept = [
            span
            for span in spans
            if span.context is not None
            and (
                self._keeps_run if span.context.trace_id == run else self._sampler.keeps_recorded(span.context.trace_id)
            )
        ]
        for queue in self._queues:
            queue.put(kept)

    def close(self) -> bool:
        """Export what is left, each queue by its own deadline; return whether everything was exported."""
        with ThreadPoolExecutor(max_workers=max(1, len(self._queues))) as threads:
            return all(list(threads.map(SpanQueue.close, self._queues)))


def _state_of_caller(environment: Mapping[str, str], trace_id: str) -> TraceState:
    """Return what vendors have added to the trace of the caller, in TRACESTATE; nothing if TRACEPARENT names another one.

    Source: W3C Trace Context, "Tracestate Header".
    """
    traceparent = environment.get("TRACEPARENT", "")
    caller = parse_traceparent(traceparent)
    if caller is None or caller.trace != trace_id:
        return TraceState()
    headers = {"traceparent": traceparent, "tracestate": environment.get("TRACESTATE", "")}
    return trace.get_current_span(_PROPAGATOR.extract(headers, Context())).get_span_context().trace_state


class _ToQueues(SpanProcessor):
    """Puts every span that ends into the queues."""

    def __init__(self, queues: Sequence[SpanQueue]) -> None:
        self._queues = queues

    def on_end(self, span: ReadableSpan) -> None:
        """Have `span` exported."""
        for queue in self._queues:
            queue.put((span,))


class _StepIds(IdGenerator):
    """Gives each span the id of its step, in the trace it belongs to."""

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
        """Begin to give the ids out."""

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def generate_span_id(self) -> int:
        """Return the id of the step whose span is being started."""
        return self._next

    def generate_trace_id(self) -> int:
        """Return the id of the trace that the span belongs to."""
        return self._trace_id


def _number(text: str | None, *, digits: int) -> int:
    """Return the number that a hexadecimal id is; 0 for anything else."""
    try:
        return int(text, 16) if text is not None and len(text) == digits else 0
    except ValueError:
        return 0
