"""Blame: the steps of a run by how long they took, after `systemd-analyze blame`."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate

from phasebus.telemetry.analysis.nesting import PlacedStep, uncovered, walk
from phasebus.telemetry.journal import RecordedStep, Run


@dataclass(frozen=True, slots=True, kw_only=True)
class BlameRow:
    """How long one step took.

    Attributes:
        step: The step.
        node: The node it ran on.
        depth: How many steps it lies inside of.
        seconds: How long it took, from its begin to its end.
        own: The part of that during which none of the steps inside it ran, in seconds; of a step that only waits, the part
            during which no step ran on its node that does not.
        share: `seconds` as a share of the time to ready, 0 to 1.
    """

    step: RecordedStep
    node: str
    depth: int
    seconds: float
    own: float
    share: float


def time_to_ready(run: Run) -> float:
    """Return how long the outermost step took, or has taken so far, in seconds; 0 if none was begun."""
    return run.root.seconds(run.end_ns) if run.root is not None else 0.0


def blame(run: Run) -> tuple[BlameRow, ...]:
    """Return a row for every step of `run`, longest first."""
    whole, placed = time_to_ready(run), list(walk(run))
    working: dict[str, list[tuple[int, int]]] = {}
    for at in placed:
        if not at.inside and not at.waits:
            working.setdefault(at.node, []).append((at.start_ns, at.end_ns))
    busy = {node: _Busy(spans) for node, spans in working.items()}
    return tuple(sorted((_row(at, whole, busy.get(at.node)) for at in placed), key=lambda row: -row.seconds))


class _Busy:
    """When at least one of several intervals lasts."""

    def __init__(self, intervals: Iterable[tuple[int, int]]) -> None:
        merged: list[list[int]] = []
        for start, end in sorted(intervals):
            if merged and start <= merged[-1][1]:
                merged[-1][1] = max(end, merged[-1][1])
            else:
                merged.append([start, end])
        self._starts = [start for start, _ in merged]
        self._ends = [end for _, end in merged]
        self._before = [0, *accumulate(end - start for start, end in merged)]

    def until(self, moment: int) -> int:
        """Return for how long any of them lasted before `moment`, in nanoseconds."""
        number = bisect_right(self._starts, moment) - 1
        if number < 0:
            return 0
        return self._before[number] + min(moment, self._ends[number]) - self._starts[number]


def _row(at: PlacedStep, whole: float, busy: _Busy | None) -> BlameRow:
    own = sum(each.end_ns - each.start_ns for each in uncovered(at))
    if at.waits and busy is not None:
        own -= busy.until(at.end_ns) - busy.until(at.start_ns)
    return BlameRow(
        step=at.step,
        node=at.node,
        depth=at.depth,
        seconds=at.seconds,
        own=own / 1e9,
        share=at.seconds / whole if whole else 0.0,
    )
