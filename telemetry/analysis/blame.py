"""Blame: the steps of a run by how long they took, after `systemd-analyze blame`."""

from __future__ import annotations

from dataclasses import dataclass

from phasebus.telemetry.journal import RecordedStep, Run


@dataclass(frozen=True, slots=True, kw_only=True)
class BlameRow:
    """How long one step took.

    Attributes:
        step: The step.
        depth: How many steps it lies inside of, by time.
        seconds: How long it took, from its begin to its end.
        own: The part of that during which none of the steps inside it ran, in seconds.
        share: `seconds` as a share of the time to ready, 0 to 1.
    """

    step: RecordedStep
    depth: int
    seconds: float
    own: float
    share: float


def time_to_ready(run: Run) -> float:
    """Return how long the outermost step took, or has taken so far, in seconds; 0 if none was begun."""
    return run.root.seconds(run.end_ns) if run.root is not None else 0.0


def blame(run: Run) -> tuple[BlameRow, ...]:
    """Return a row for every step of `run`, longest first.

    Steps are nested by time: a step lies inside the shortest other one that contains its interval. An engine's own
    spans name parents that had ended before they began, so that their parents would mislead.
    """
    whole = time_to_ready(run)
    steps = sorted(run.steps, key=lambda step: (step.start_ns, -_end(step, run)))
    inside: dict[str, list[RecordedStep]] = {}
    depth: dict[str, int] = {}
    for index, step in enumerate(steps):
        outer = [other for other in steps[:index] if _end(other, run) >= _end(step, run)]
        if outer:
            parent = min(outer, key=lambda other: (_end(other, run) - other.start_ns, -depth[other.id]))
            inside.setdefault(parent.id, []).append(step)
            depth[step.id] = depth[parent.id] + 1
        else:
            depth[step.id] = 0
    rows = [
        BlameRow(
            step=step,
            depth=depth[step.id],
            seconds=step.seconds(run.end_ns),
            own=step.seconds(run.end_ns) - _covered(inside.get(step.id, []), run),
            share=step.seconds(run.end_ns) / whole if whole else 0.0,
        )
        for step in steps
    ]
    return tuple(sorted(rows, key=lambda row: -row.seconds))


def _end(step: RecordedStep, run: Run) -> int:
    return step.end_ns if step.end_ns is not None else run.end_ns


def _covered(steps: list[RecordedStep], run: Run) -> float:
    """Return how long at least one of `steps` ran, in seconds: the length of the union of their intervals."""
    covered = 0
    reached = 0
    for step in sorted(steps, key=lambda step: step.start_ns):
        covered += max(0, _end(step, run) - max(step.start_ns, reached))
        reached = max(reached, _end(step, run))
    return covered / 1e9
