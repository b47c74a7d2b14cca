"""Steps as Prometheus metrics."""

from __future__ import annotations

from prometheus_client import Gauge

from phasebus.bus import StepEvent, StepFailed, StepFinished, StepProgress, StepsCounted, StepStarted
from phasebus.telemetry.metrics import Metrics, observe_many

_TRACE_ID_CHARACTERS = 32
_STEP_ID_CHARACTERS = 16


class MetricsObserver:
    """Counts and times every step, by the rows of `phasebus.telemetry.names`.

    Args:
        metrics: Where the counts are kept.
        trace: The run's trace id, for the exemplars that lead from a histogram to its trace. A step with an attribute
            ``trace_id`` belongs to that trace instead.
    """

    def __init__(self, metrics: Metrics, trace: str | None = None) -> None:
        self._metrics = metrics
        self._trace = trace
        self._running: dict[str, Gauge] = {}
        self._done: dict[str, float] = {}

    def observe(self, event: StepEvent | StepsCounted) -> None:
        """Count one event."""
        self._metrics.events(type(event).__name__).inc()
        if isinstance(event, StepsCounted):
            self._add(event)
        elif isinstance(event, StepStarted):
            self._start(event)
        elif isinstance(event, StepProgress):
            self._advance(event)
        elif isinstance(event, StepFinished):
            self._end(event, event.seconds, "finished")
        elif isinstance(event, StepFailed):
            self._end(event, event.seconds, event.outcome)

    def close(self) -> None:
        """Count down the steps that still run: the bus has closed."""
        for gauge in self._running.values():
            gauge.dec()
        self._running.clear()
        self._done.clear()

    def _start(self, event: StepStarted) -> None:
        if event.step in self._running:
            return
        gauge = self._running[event.step] = self._metrics.in_progress(event.kind, event.name, event.attributes)
        gauge.inc()

    def _advance(self, event: StepProgress) -> None:
        if event.unit == "By":
            moved = event.done - self._done.get(event.step, event.done)  # the first value was there before
            self._done[event.step] = event.done
            self._metrics.progress(event.kind).inc(max(0.0, moved))

    def _end(self, event: StepEvent, seconds: float, outcome: str) -> None:
        self._done.pop(event.step, None)
        if (gauge := self._running.pop(event.step, None)) is not None:
            gauge.dec()
        histogram = self._metrics.durations(event.kind, event.name, event.attributes, outcome)
        histogram.observe(seconds, self._exemplar(event))
        self._metrics.count(event.kind, event.attributes, outcome)

    def _add(self, event: StepsCounted) -> None:
        """Add steps that were counted together."""
        histogram = self._metrics.durations(event.kind, event.name, event.attributes, event.outcome)
        observe_many(histogram, event.seconds)
        self._metrics.count(event.kind, event.attributes, event.outcome, len(event.seconds))

    def _exemplar(self, event: StepEvent) -> dict[str, str] | None:
        """Return the exemplar of a step that has ended; None without a trace, or if an id is not one of W3C's length."""
        trace = event.attributes.get("trace_id", self._trace)
        if not _is_id(trace, _TRACE_ID_CHARACTERS) or not _is_id(event.step, _STEP_ID_CHARACTERS):
            return None
        return {"trace_id": str(trace), "span_id": event.step}


def _is_id(value: object, most: int) -> bool:
    return isinstance(value, str) and 0 < len(value) <= most and value.isascii() and value.isalnum()
