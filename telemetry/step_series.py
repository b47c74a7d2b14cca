"""The series of the steps that have the same labels, and the gauges of those that run."""

from __future__ import annotations

from collections import Counter as Multiset
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from phasebus.clock import now_ns
from phasebus.telemetry import names
from phasebus.telemetry.families import Family, KindNames

FAILURES: Final = frozenset({"failed", "timed_out", "died"})
"""The outcomes that count as failures; a step that was cancelled has not failed by itself."""

Labels = Mapping[str, str]
MakeSeries = Callable[[Family, Labels], Any]


class StepSeries:
    """The series of the steps of one kind that have the same labels; all of them exist at 0 as soon as this does.

    Args:
        kind: The kind.
        row: The row of the kind.
        labels: The values of the labels, ``outcome`` excepted, as far as they are known.
        make: Returns the series of a family.

    Attributes:
        kind: The kind.
        row: The row of the kind.
        values: The values of the labels of the duration.
        duration: The histogram or summary of the durations.
        has_run: Whether such a step has run.
    """

    def __init__(self, kind: str, row: KindNames, labels: Labels, make: MakeSeries) -> None:
        self.kind = kind
        self.row = row
        self.values = tuple(labels[label] for label in row.duration.labels)
        self._labels = labels
        self._make = make
        self.duration = make(row.duration, labels)
        self._failures = None if row.failures is None else make(row.failures, labels)
        self._ends: dict[str, Any] = {}
        self._began: dict[str, int] = {}
        self._stuck: set[str] = set()
        self.has_run = False
        known = {*labels, "outcome"}
        for family in (row.ends, *(count.family for count in row.counts)):
            if family is not None and known.issuperset(family.labels):
                for outcome in row.outcomes if "outcome" in family.labels else ("",):
                    series = make(family, {**labels, "outcome": outcome})
                    if family is row.ends:
                        self._ends[outcome] = series

    @property
    def name(self) -> str:
        """The name of the steps, if it is a label of theirs; "" otherwise."""
        return self._labels.get(self.row.name_label or "", "")

    @property
    def is_complete(self) -> bool:
        """Whether the value of every label is known."""
        return all(self.values)

    def start(self, step: str, time_ns: int) -> None:
        """Record that a step runs since `time_ns`, in nanoseconds since the epoch."""
        self._began[step] = time_ns
        self.has_run = True

    def stop(self, step: str) -> None:
        """Record that a step does not run any more."""
        self._began.pop(step, None)
        self._stuck.discard(step)

    def mark_stuck(self, step: str, *, stuck: bool) -> None:
        """Record whether a running step makes no progress."""
        if stuck:
            self._stuck.add(step)
        else:
            self._stuck.discard(step)

    def count(
        self, outcome: str, attributes: Mapping[str, object], steps: int, exemplar: dict[str, str] | None
    ) -> None:
        """Count `steps` steps that have ended.

        Args:
            outcome: How they ended, by the bus.
            attributes: Their attributes; ``outcome`` among them replaces the outcome in the counters of attributes.
            steps: How many they are.
            exemplar: The labels of the exemplar; None for no exemplar.
        """
        if self._failures is not None and outcome in FAILURES:
            self._failures.inc(steps, exemplar)
        if self.row.ends is not None:
            ended = self._ends.get(outcome) or self._make(self.row.ends, {**self._labels, "outcome": outcome})
            ended.inc(steps, exemplar)
        for count in self.row.counts:
            amount = steps if count.attribute is None else attributes.get(count.attribute, 0)
            if isinstance(amount, int | float) and 0 <= amount < 2**63:  # neither NaN nor infinite
                known: dict[str, Any] = {"outcome": outcome, **attributes, **self._labels}
                self._make(count.family, known).inc(amount)

    def running(self) -> tuple[int, ...]:
        """Return when each of the running steps began, in nanoseconds since the epoch."""
        return tuple(self._began.values())

    def stuck(self) -> int:
        """Return how many of the running steps make no progress."""
        return sum(step in self._began for step in tuple(self._stuck))  # one may be marked while it ends


class RunningSteps(Collector):
    """The number and the age of the running steps, and which of them are stuck, read at every scrape.

    Args:
        series: Returns the series of all steps.
        named: Returns the exported family of a row's family.
    """

    def __init__(self, series: Callable[[], Sequence[StepSeries]], named: Callable[[Family], Family]) -> None:
        self._series = series
        self._named = named

    def collect(self) -> Iterable[Metric]:
        """Return the gauges of the steps that run, or have run, and of those that are stuck."""
        now = now_ns()
        found: dict[str, Metric] = {}

        def add(family: Family, values: Sequence[str], value: float) -> None:
            family = self._named(family)
            gauge = found.get(family.name)
            if gauge is None:
                gauge = found[family.name] = GaugeMetricFamily(*family.header, labels=family.labels)
            gauge.add_metric(values, value)  # type: ignore[attr-defined]

        stuck: Multiset[tuple[str, str]] = Multiset()
        for series in self._series():
            if number := series.stuck():
                stuck[series.kind, series.name] += number
            began = series.running()
            if began or (series.has_run and series.row.shows_idle):
                add(series.row.in_progress, series.values, len(began))
            if began:
                add(series.row.age, series.values, max(0.0, (now - min(began)) / 1e9))
        for labels, number in stuck.items() or [(("", ""), 0)]:
            add(names.STUCK, labels, number)
        return found.values()

    def describe(self) -> Iterable[Metric]:
        """Return nothing: the families are known only when they are collected."""
        return ()
