"""Steps as Prometheus metrics."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import Gauge

from phasebus.bus import (
    AttributeValue,
    StepEvent,
    StepFailed,
    StepFinished,
    StepProgress,
    StepsCounted,
    StepStarted,
)
from phasebus.telemetry.metrics import Metrics, label_value, observe_many
from phasebus.telemetry.names import KINDS, OTHER_KIND, Count, Duration
from phasebus.telemetry.redaction import redact


class MetricsObserver:
    """Counts and times every step, by the rows of `phasebus.telemetry.names`.

    Args:
        metrics: Where the counts are kept.
        trace: The run's trace id, for the exemplars that lead from a histogram to its trace.
    """

    def __init__(self, metrics: Metrics, trace: str | None = None) -> None:
        self._metrics = metrics
        self._trace = trace
        self._running: dict[str, Gauge] = {}
        self._done: dict[str, float] = {}

    def observe(self, event: StepEvent | StepsCounted) -> None:
        """Count one event."""
        self._metrics.events.labels(type(event).__name__).inc()
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
        """Count down what was left running: the bus has closed."""
        for gauge in self._running.values():
            gauge.dec()
        self._running.clear()

    def _start(self, event: StepStarted) -> None:
        duration = _duration(event.kind)
        _, gauge = self._metrics.duration(duration)
        labels = _labels(duration, event)
        running = gauge.labels(**labels) if labels else gauge
        running.inc()
        self._running[event.step] = running

    def _advance(self, event: StepProgress) -> None:
        if event.unit == "By":
            moved = event.done - self._done.get(event.step, event.done)  # what was there at first was not moved
            self._done[event.step] = event.done
            self._metrics.progress.labels(event.kind).inc(max(0.0, moved))

    def _end(self, event: StepEvent, seconds: float, outcome: str) -> None:
        self._done.pop(event.step, None)
        if (running := self._running.pop(event.step, None)) is not None:
            running.dec()
        duration = _duration(event.kind)
        histogram, _ = self._metrics.duration(duration)
        exemplar = None if self._trace is None else {"trace_id": self._trace, "span_id": event.step}
        histogram.labels(**_labels(duration, event), outcome=outcome).observe(seconds, exemplar)
        if event.kind in KINDS:
            for count in KINDS[event.kind].counts:
                self._count(count, event.attributes, outcome)

    def _add(self, event: StepsCounted) -> None:
        """Add steps that were counted together."""
        duration = _duration(event.kind)
        histogram, _ = self._metrics.duration(duration)
        observe_many(histogram.labels(**_labels(duration, event), outcome=event.outcome), event.seconds)
        if event.kind in KINDS:
            for count in KINDS[event.kind].counts:
                self._count(count, event.attributes, event.outcome, len(event.seconds))

    def _count(self, count: Count, attributes: Mapping[str, AttributeValue], outcome: str, steps: int = 1) -> None:
        amount = steps if count.attribute is None else attributes.get(count.attribute, 0)
        if isinstance(amount, int | float):
            known = {"outcome": outcome, **attributes}
            labels = [label_value(known, label) for label in count.labels]
            self._metrics.counters[count.name].labels(*labels).inc(amount)


def _duration(kind: str) -> Duration:
    return KINDS[kind].duration if kind in KINDS else OTHER_KIND


def _labels(duration: Duration, event: StepEvent | StepsCounted) -> dict[str, str]:
    known = {"kind": event.kind, **event.attributes}
    labels = {label: label_value(known, label) for label in duration.labels}
    if duration.name_label is not None:
        labels[duration.name_label] = redact(event.name)
    return labels
