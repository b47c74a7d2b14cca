"""Steps as Prometheus metrics."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from phasebus.bus import StepEvent, StepFailed, StepFinished, StepProgress, StepsCounted, StepStarted
from phasebus.telemetry import names
from phasebus.telemetry.analysis.exclusive import UNATTRIBUTED, exclusive_seconds
from phasebus.telemetry.journal import RecordedStep
from phasebus.telemetry.metrics import Metrics, observe_many
from phasebus.telemetry.step_series import FAILURES, StepSeries
from phasebus.telemetry.stuck import StuckSteps

_TRACE_ID_CHARACTERS: Final = 32
_STEP_ID_CHARACTERS: Final = 16
_MAX_PARTS: Final = 2_000
"""How many steps the duration of a step is divided among; the time of the others is unattributed."""

_WHERE: Final = {"phase": "phase", "step": "engine_step"}
"""By a label of the gauge of a failure: its value is the first failed step of this kind."""


@dataclass(slots=True)
class _DividedStep:
    """A running step; its duration will be divided among the steps inside it.

    Attributes:
        whole: The step.
        kind: The kind of the steps inside it.
        parts: The steps of that kind, by their ids.
    """

    whole: RecordedStep
    kind: str
    parts: dict[str, RecordedStep] = field(default_factory=dict)


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
        self._running: dict[str, StepSeries] = {}
        self._done: dict[str, float] = {}
        self._divided: dict[str, _DividedStep] = {}
        self._failed: dict[str, str] = {}
        self._stuck: dict[str, StepSeries] = {}

    def observe(self, event: StepEvent | StepsCounted) -> None:
        """Count one event."""
        self._metrics.events.inc()
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

    def record_stuck(self, stuck: StuckSteps) -> None:
        """Export these steps as stuck, and no others."""
        found = {each.step: self._running[each.step] for each in stuck.steps if each.step in self._running}
        for step, series in (self._stuck | found).items():
            series.mark_stuck(step, stuck=step in found)
        self._stuck = found

    def close(self) -> None:
        """Count down the steps that still run: the bus has closed."""
        for step, series in self._running.items():
            series.stop(step)
        self._running.clear()
        self._done.clear()
        self._divided.clear()

    def _start(self, event: StepStarted) -> None:
        if event.step in self._running:
            return
        series = self._running[event.step] = self._metrics.steps(event.kind, event.name, event.attributes)
        series.start(event.step, event.time_ns)
        self._metrics.announce(event.kind, event.attributes)
        if series.row.divides is not None:
            recorded = RecordedStep.of(event, "")
            self._divided[event.step] = _DividedStep(recorded, series.row.divides[1])
            self._metrics.share(event.kind, UNATTRIBUTED)
        self._record_part(event)

    def _advance(self, event: StepProgress) -> None:
        if event.unit == "By" and names.kind_names(event.kind).moves_bytes:
            moved = event.done - self._done.get(event.step, event.done)  # the first value was there before
            self._done[event.step] = event.done
            self._metrics.series(names.PROGRESS, {"kind": event.kind}).inc(max(0.0, moved))

    def _end(self, event: StepFinished | StepFailed, seconds: float, outcome: str) -> None:
        self._done.pop(event.step, None)
        series = self._running.pop(event.step, None)
        if series is not None:
            series.stop(event.step)
        if series is None or not series.is_complete:
            series = self._metrics.steps(event.kind, event.name, event.attributes)
        exemplar = self._exemplar(event)
        if outcome == "finished":
            # a summary has no exemplars
            series.duration.observe(seconds, *((exemplar,) if series.row.duration.buckets else ()))
        series.count(outcome, event.attributes, 1, exemplar)
        self._record_part(event)
        self._divide(event, series)
        self._keep_latest(event, series, seconds)

    def _record_part(self, event: StepEvent) -> None:
        """Record a step as a part of the running steps that will be divided among such parts."""
        for divided in self._divided.values():
            if divided.kind == event.kind:
                part = divided.parts.get(event.step)
                if part is None and len(divided.parts) < _MAX_PARTS:
                    self._metrics.share(divided.whole.kind, event.name)
                    part = divided.parts[event.step] = RecordedStep.of(event, "")
                if part is not None:
                    part.update(event)

    def _divide(self, event: StepFinished | StepFailed, series: StepSeries) -> None:
        """Count the exclusive time of the steps inside a step that has finished."""
        divided = self._divided.pop(event.step, None)
        if divided is None or series.row.divides is None or isinstance(event, StepFailed):
            return
        divided.whole.end_ns = max(divided.whole.start_ns, event.time_ns)
        for name, seconds in exclusive_seconds(divided.whole, list(divided.parts.values())).items():
            self._metrics.share(event.kind, name).inc(seconds)

    def _keep_latest(self, event: StepFinished | StepFailed, series: StepSeries, seconds: float) -> None:
        """Set the gauges of what a process does once: its duration, or the cause of its failure."""
        labels = dict(zip(series.row.duration.labels, series.values, strict=True))
        if isinstance(event, StepFailed):
            if event.outcome in FAILURES and event.kind in _WHERE.values():
                self._failed.setdefault(event.kind, event.name)
            if series.row.failure is not None:
                where = {label: self._failed.get(kind, "") for label, kind in _WHERE.items()}
                labels |= {**where, "outcome": event.outcome, "error": type(event.error).__name__}
                if (gauge := self._metrics.latest(series.row.failure, labels)) is not None:
                    gauge.set(1)
        elif series.row.latest is not None and (gauge := self._metrics.latest(series.row.latest, labels)) is not None:
            gauge.set(seconds)

    def _add(self, event: StepsCounted) -> None:
        """Add steps that were counted together."""
        series = self._metrics.steps(event.kind, event.name, event.attributes)
        if event.outcome == "finished":
            if series.row.duration.buckets:
                observe_many(series.duration, event.seconds)
            else:
                for seconds in event.seconds:
                    series.duration.observe(seconds)
        series.count(event.outcome, event.attributes, len(event.seconds), None)

    def _exemplar(self, event: StepEvent) -> dict[str, str] | None:
        """Return the exemplar of a step that has ended; None without a trace, or if an id is not one of W3C's length."""
        trace = event.attributes.get("trace_id", self._trace)
        if not _is_id(trace, _TRACE_ID_CHARACTERS) or not _is_id(event.step, _STEP_ID_CHARACTERS):
            return None
        return {"trace_id": str(trace), "span_id": event.step}


def _is_id(value: object, most: int) -> bool:
    return isinstance(value, str) and 0 < len(value) <= most and value.isascii() and value.isalnum()
