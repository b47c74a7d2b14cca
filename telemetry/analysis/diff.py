"""Diff: two runs, or the medians of several, phase by phase, with what got slower first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from phasebus.telemetry.analysis.blame import time_to_ready
from phasebus.telemetry.analysis.nesting import walk
from phasebus.telemetry.journal import Run

_COMPARED = ("cluster", "node", "phase", "engine", "engine_step", "ray")
"""The kinds whose steps have the same names in every run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How long one sort of step took in two runs.

    Attributes:
        kind: The kind of step.
        name: Its name; "" where there is one for a whole node or cluster.
        before: How long it took in the first run, in seconds; None if it was not there.
        after: How long it took in the second, likewise.
    """

    kind: str
    name: str
    before: float | None
    after: float | None

    @property
    def change(self) -> float:
        """How much longer the second run took for it, in seconds."""
        return (self.after or 0.0) - (self.before or 0.0)

    def slower(self, share: float, seconds: float) -> bool:
        """Return whether it got slower by more than `share` (0.1 for 10 %) and by more than `seconds`."""
        return self.change > seconds and self.change > share * (self.before or 0.0)


def diff(before: Run | Sequence[Run], after: Run | Sequence[Run]) -> tuple[Difference, ...]:
    """Return a row for every sort of step of the two runs, what got slower by most first.

    With several nodes the slowest one counts, which is the one that the others wait for; what a node did several times
    counts together. Of several runs, the median counts of those that have the step, if at least half have it.
    """
    first, second = _usual_durations(before), _usual_durations(after)
    rows = [
        Difference(kind=kind, name=name, before=first.get((kind, name)), after=second.get((kind, name)))
        for kind, name in dict.fromkeys([*first, *second])
    ]
    return tuple(sorted(rows, key=lambda row: -row.change))


def usual_seconds(runs: Sequence[Run]) -> float:
    """Return the median of the times to ready of `runs`, in seconds."""
    return median(time_to_ready(run) for run in runs)


def _usual_durations(runs: Run | Sequence[Run]) -> dict[tuple[str, str], float]:
    each = [_durations(run) for run in ([runs] if isinstance(runs, Run) else runs)]
    found: dict[tuple[str, str], list[float]] = {}
    for durations in each:
        for key, seconds in durations.items():
            found.setdefault(key, []).append(seconds)
    return {key: median(seconds) for key, seconds in found.items() if 2 * len(seconds) >= len(each)}


def _durations(run: Run) -> dict[tuple[str, str], float]:
    nodes: dict[tuple[str, str], dict[str, float]] = {}
    path: list[tuple[str, str]] = []  # the kinds and names of a step and of those around it
    around: Counter[tuple[str, str]] = Counter()
    for at in walk(run):
        while len(path) > at.depth:
            around[path.pop()] -= 1
        path.append((at.step.kind, at.step.name))
        around[path[-1]] += 1
        if at.step.kind in _COMPARED:
            name = "" if at.step.kind in ("cluster", "node", "engine") else at.step.name
            seconds = nodes.setdefault((at.step.kind, name), {})
            nested = around[at.step.kind, at.step.name] > 1
            seconds[at.node] = seconds.get(at.node, 0.0) + (0.0 if nested else at.seconds)
    return {each: max(seconds.values()) for each, seconds in nodes.items()}
