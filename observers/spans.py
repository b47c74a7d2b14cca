"""Steps as OpenTelemetry spans."""

from __future__ import annotations

import threading
from collections import deque

from opentelemetry.trace import Span
from opentelemetry.trace.status import Status, StatusCode

from phasebus.bus import AttributeValue, StepEvent, StepFailed, StepFinished, StepStarted
from phasebus.telemetry.names import span_attribute, span_name
from phasebus.telemetry.redaction import reason, redact, redact_attributes
from phasebus.telemetry.relay import EngineSpan, Relay
from phasebus.telemetry.tracing import Tracing

_ARRIVED_KEPT = 10_000
"""How many of the latest spans of other processes are remembered: more than the start of an engine has."""


_LAST_SPANS_SECONDS = 0.5


class SpanObserver:
    """Makes a span of every step, unless the process that ran it has exported one.

    A process may end before it exports its last spans: an engine that is closed soon after it is ready is one. Their
    children would have no parent, so the spans that have not arrived when the bus closes are made here.

    A step with an attribute ``trace_id`` is of that trace and not of the run's; so are the steps inside it. Its attribute
    ``trace_sampled`` says whether its caller is sampled; without it, it has none.

    Args:
        tracing: What makes and exports the spans.
        relay: Where the spans of other processes arrive. Without it, every process is relied upon to export its own.
        last_spans_seconds: How long to wait at the end for spans that have not arrived, in seconds.
    """

    def __init__(
        self, tracing: Tracing, relay: Relay | None = None, *, last_spans_seconds: float = _LAST_SPANS_SECONDS
    ) -> None:
        self._tracing = tracing
        self._open: dict[str, Span] = {}
        self._traces: dict[str, tuple[str, bool | None]] = {}
        self._elsewhere: dict[str, StepStarted] = {}
        self._unexported: dict[str, tuple[StepStarted, StepFinished | StepFailed]] = {}
        self._arrived: deque[tuple[str, int]] = deque(maxlen=_ARRIVED_KEPT)
        self._arrival = threading.Condition()
        self._last_spans_seconds = last_spans_seconds
        self._relay = relay
        self._end_listening = None if relay is None else relay.listen(self._receive)

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
            if begun_elsewhere is not None and self._relay is not None and not self._relay.is_bypassed:
                self._unexported[event.step] = begun_elsewhere, event
            return
        span = self._open.pop(event.step, None)
        if span is None:
            if begun_elsewhere is None:
                return
            span = self._start(begun_elsewhere)  # its process ended before it exported the span
        self._end(span, event)

    def close(self) -> None:
        """Make the spans that other processes have not exported, and end those of steps that have not ended."""
        with self._arrival:
            self._arrival.wait_for(lambda: not self._missing(), self._last_spans_seconds)
            missing = self._missing()
        if self._end_listening is not None:
            self._end_listening()
        for started, ended in missing:
            self._end(self._start(started), ended)
        self._unexported.clear()
        for span in self._open.values():
            span.set_status(Status(StatusCode.ERROR, "the bus closed before the step ended"))
            span.set_attribute(span_attribute("outcome"), "died")
            span.end()
        self._open.clear()

    def _receive(self, received: object) -> None:
        """Remember a span that another process has exported; called in the relay's thread."""
        if isinstance(received, EngineSpan):
            with self._arrival:
                self._arrived.append((received.span, received.start_ns))
                self._arrival.notify_all()

    def _missing(self) -> list[tuple[StepStarted, StepFinished | StepFailed]]:
        """Return the steps of other processes whose spans have not arrived.

        A step whose span id another process has used as well has another id, but begins when its span does.
        """
        spans, beginnings = {span for span, _ in self._arrived}, {start_ns for _, start_ns in self._arrived}
        return [
            (started, ended)
            for started, ended in self._unexported.values()
            if started.step not in spans and started.time_ns not in beginnings
        ]

    def _end(self, span: Span, event: StepFinished | StepFailed) -> None:
        self._traces.pop(event.step, None)
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


def _own_trace(event: StepStarted) -> tuple[str, bool | None] | None:
    """Return the trace that a step names, and whether its caller is sampled; None if it is of the run's trace."""
    trace_id, sampled = event.attributes.get("trace_id"), event.attributes.get("trace_sampled")
    return (str(trace_id), sampled if isinstance(sampled, bool) else None) if trace_id else None


def _attributes(event: StepEvent) -> dict[str, AttributeValue]:
    return {span_attribute(key): value for key, value in redact_attributes(event.attributes).items()}


def _fail(span: Span, event: StepFailed) -> None:
    """Record on the span why its step failed, by OpenTelemetry's semantic conventions for exceptions."""
    kind = type(event.error).__qualname__
    message = reason(event)
    span.set_attributes({span_attribute("outcome"): event.outcome, "error.type": kind})
    span.add_event("exception", {"exception.type": kind, "exception.message": message}, event.time_ns)
    span.set_status(Status(StatusCode.ERROR, message))
