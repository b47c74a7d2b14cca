"""Steps as OpenTelemetry spans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import phasebus.telemetry.otel.sdk  # noqa: F401  # isort: skip  # before anything of OpenTelemetry
from opentelemetry.trace import Link, Span, SpanContext, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from phasebus.bus import AttributeValue, StepEvent, StepFailed, StepFinished, StepStarted
from phasebus.telemetry.redaction import reason, redact, redact_attributes
from phasebus.telemetry.run import parse_traceparent
from phasebus.telemetry.running_steps import RunningSteps
from phasebus.telemetry.span_events import STACK_TRACE, InnerEvents, exception_event
from phasebus.telemetry.span_names import (
    LINKED_TO,
    SPAN_NAME,
    pending_id,
    process_attributes,
    span_attribute,
    span_name,
)
from phasebus.telemetry.stuck import StuckSteps
from phasebus.telemetry.tracing import Tracing


class SpanObserver:
    """Exports a span for each step when it ends, unless the process of the step exports its span itself.

    A step with an attribute ``trace_id`` is of that trace and not of the run's; so are the steps inside it. Its attribute
    ``trace_sampled`` says whether its caller is sampled; without it, it has none.

    Args:
        tracing: Creates and exports the spans.
    """

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing
        self._running = RunningSteps()
        self._traces: dict[str, tuple[str, bool | None]] = {}
        self._inner_events = InnerEvents()

    def observe(self, event: StepStarted | StepFinished | StepFailed) -> None:
        """Record the start of a step, or make its span."""
        if isinstance(event, StepStarted):
            self._running.start(event)
            trace = _own_trace(event) or self._traces.get(event.parent or "")
            if trace is not None:
                self._traces[event.step] = trace
            if not event.traced:
                self._export_pending(event)
            return
        self._inner_events.add(event)
        started = self._running.end(event.step)
        if started is not None and not event.traced:
            self._export(started, event)
        self._traces.pop(event.step, None)

    def record_stuck(self, stuck: StuckSteps) -> None:
        """Add an event to the spans of the steps that are stuck. May be called from any thread."""
        running = tuple(step for step in stuck.steps if step.step in self._running)
        self._inner_events.add_stuck(replace(stuck, steps=running))

    def close(self) -> None:
        """Make the spans of the steps that have not ended."""
        for started in reversed(self._running.all()):
            if not started.traced:
                span = self._start(started, started.parent)
                span.set_attributes({span_attribute("outcome"): "died", "error.type": "died"})
                for each in self._inner_events.take(started.step):
                    span.add_event(each.name, each.attributes, max(each.time_ns, started.time_ns))
                span.set_status(Status(StatusCode.ERROR, "the bus closed before the step ended"))
                span.end()
        self._running.clear()

    def _export_pending(self, started: StepStarted) -> None:
        """Export the start of a step at once, if enabled: a span without duration inside the step's span."""
        if self._tracing.exports_pending:
            span = self._start(started, started.step, pending=True)
            span.end(started.time_ns)

    def _export(self, started: StepStarted, ended: StepFinished | StepFailed) -> None:
        span = self._start(started, ended.parent)  # at its end, a step of an engine knows its parent better
        span.set_attributes(_attributes(ended))
        for each in self._inner_events.take(ended.step):
            span.add_event(each.name, each.attributes, min(max(each.time_ns, started.time_ns), ended.time_ns))
        if isinstance(ended, StepFailed):
            _fail(span, ended)
        span.end(max(started.time_ns, ended.time_ns))

    def _start(self, started: StepStarted, parent: str | None, *, pending: bool = False) -> Span:
        trace_id, sampled = self._traces.get(started.step, (None, None))
        attributes = started.attributes
        name = str(attributes.get(SPAN_NAME) or span_name(started.kind, started.name))
        more: dict[str, AttributeValue] = {"phasebus.pending": True} if pending else {}
        return self._tracing.start(
            f"started {name}" if pending else name,
            step=pending_id(started.step) if pending else started.step,
            parent=parent,
            time_ns=started.time_ns,
            trace_id=trace_id,
            parent_sampled=sampled,
            process=process_attributes(attributes),
            links=_links(attributes),
            attributes=_attributes(started)
            | {"phasebus.kind": started.kind, "phasebus.name": redact(started.name), **more},
        )


def _own_trace(event: StepEvent) -> tuple[str, bool | None] | None:
    """Return the trace that a step names, and whether its caller is sampled; None if it is of the run's trace."""
    trace_id, sampled = event.attributes.get("trace_id"), event.attributes.get("trace_sampled")
    return (str(trace_id), sampled if isinstance(sampled, bool) else None) if trace_id else None


def _links(attributes: Mapping[str, AttributeValue]) -> tuple[Link, ...]:
    """Return the link to the span that a step names as related."""
    related = parse_traceparent(str(attributes.get(LINKED_TO, "")))
    if related is None:
        return ()
    flags = TraceFlags(TraceFlags.SAMPLED if related.sampled else TraceFlags.DEFAULT)
    return (Link(SpanContext(int(related.trace, 16), int(related.span, 16), True, flags)),)


def _attributes(event: StepEvent) -> dict[str, AttributeValue]:
    attributes = redact_attributes(event.attributes)
    for key in (SPAN_NAME, LINKED_TO, STACK_TRACE):
        attributes.pop(key, None)
    return {span_attribute(key): value for key, value in attributes.items()}


def _fail(span: Span, event: StepFailed) -> None:
    """Record the error of a step on its span. Source: OpenTelemetry semantic conventions for exceptions."""
    exception = exception_event(event)
    kind = type(event.error).__qualname__
    span.set_attributes({span_attribute("outcome"): event.outcome, "error.type": kind})
    span.add_event(exception.name, exception.attributes, exception.time_ns)
    span.set_status(Status(StatusCode.ERROR, reason(event)))
