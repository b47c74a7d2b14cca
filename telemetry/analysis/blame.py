"""Blame: the steps of a run by how long they took, after `systemd-analyze blame`."""

from __future__ import annotations

from dataclasses import dataclass

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
        own: The part of that during which none of the steps inside it ran, in seconds.
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
    whole = time_to_ready(run)
    return tuple(sorted((_row(at, whole) for at in walk(run)), key=lambda row: -row.seconds))


def _row(at: PlacedStep, whole: float) -> BlameRow:
    return BlameRow(
        step=at.step,
        node=at.node,
        depth=at.depth,
        seconds=at.seconds,
        own=sum(each.end_ns - each.start_ns for each in uncovered(at)) / 1e9,
        share=at.seconds / whole if whole else 0.0,
    )
