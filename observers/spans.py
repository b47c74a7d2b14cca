"""Steps as OpenTelemetry spans."""

from __future__ import annotations

from opentelemetry.trace import Span
from opentelemetry.trace.status import Status, StatusCode

from phasebus.bus import AttributeValue, StepEvent, StepFailed, StepFinished, StepStarted
from phasebus.telemetry.names import span_attribute, span_name
from phasebus.telemetry.redaction import reason, redact, redact_value
from phasebus.telemetry.tracing import Tracing


class SpanObserver:
    """Makes a span of every step that is not exported by the process that ran it.

    A step with an attribute ``trace_id`` is of that trace and not of the run's; so are the steps inside it. Its attribute
    ``trace_sampled`` says whether its caller is sampled; without it, it has none.

    Args:
        tracing: What makes and exports the spans.
    """

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing
        self._open: dict[str, Span] = {}
        self._traces: dict[str, tuple[str, bool | None]] = {}
        self._elsewhere: dict[str, StepStarted] = {}

    def observe(self, event: StepStarted | StepFinished | StepFailed) -> None:
        """Begin, or end, the span of a step."""
        if isinstance(event, StepStarted):
            if event.traced:
                self._elsewhere[event.step] = event
            else:
                self._open[event.step] = self._start(event)
            return
        begun_elsewhere = self._elsewhere.pop(event.step, None)
        if event.traced:
            return
        span = self._open.pop(event.step, None)
        self._traces.pop(event.step, None)
        if span is None:
            if begun_elsewhere is None:
                return
            span = self._start(begun_elsewhere)  # its own process did not live to export it
        span.set_attributes(_attributes(event))
        if isinstance(event, StepFailed):
            _fail(span, event)
        span.end(event.time_ns)

    def _start(self, event: StepStarted) -> Span:
        trace_id, sampled = _own_trace(event) or self._traces.get(event.parent or "") or (None, None)
        if trace_id is not None:
            self._traces[event.step] = trace_id, sampled
        return self._tracing.start(
            span_name(event.kind, event.name),
            step=event.step,
            parent=event.parent,
            time_ns=event.time_ns,
            trace_id=trace_id,
            parent_sampled=sampled,
            attributes=_attributes(event) | {"phasebus.kind": event.kind, "phasebus.name": redact(event.name)},
        )

    def close(self) -> None:
        """End the spans of steps whose end was never told: the bus closed before they did."""
        for span in self._open.values():
            span.set_status(Status(StatusCode.ERROR, "its end was never told"))
            span.set_attribute(span_attribute("outcome"), "died")
            span.end()
        self._open.clear()


def _own_trace(event: StepStarted) -> tuple[str, bool | None] | None:
    """Return the trace that a step names, and whether its caller is sampled; None if it is of the run's trace."""
    trace_id, sampled = event.attributes.get("trace_id"), event.attributes.get("trace_sampled")
    return (str(trace_id), sampled if isinstance(sampled, bool) else None) if trace_id else None


def _attributes(event: StepEvent) -> dict[str, AttributeValue]:
    return {span_attribute(key): redact_value(key, value) for key, value in event.attributes.items()}


def _fail(span: Span, event: StepFailed) -> None:
    """Say on the span why its step failed, in OpenTelemetry's semantic conventions for exceptions."""
    kind = type(event.error).__qualname__
    message = reason(event)
    span.set_attributes({span_attribute("outcome"): event.outcome, "error.type": kind})
    span.add_event("exception", {"exception.type": kind, "exception.message": message}, event.time_ns)
    span.set_status(Status(StatusCode.ERROR, message))
