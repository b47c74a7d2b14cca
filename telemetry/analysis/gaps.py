"""Gaps: the time that no step accounts for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from phasebus.telemetry.analysis.nesting import PlacedStep, Uncovered, end_of, uncovered, walk
from phasebus.telemetry.journal import RecordedStep, Run
from phasebus.telemetry.span_names import INNER_STEPS, LONGEST


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A stretch of a step during which none of the steps inside it ran.

    Attributes:
        step: The step it lies in.
        node: The node.
        after: The step that ended before it; None at the beginning of `step`.
        before: The step that began after it; None at the end of `step`.
        start_ns: When it began, in nanoseconds since the epoch.
        seconds: How long it was.
    """

    step: RecordedStep
    node: str
    after: RecordedStep | None
    before: RecordedStep | None
    start_ns: int
    seconds: float


def gaps(run: Run, shortest: float = 0.01, placed: Iterable[PlacedStep] | None = None) -> tuple[Gap, ...]:
    """Return the gaps of `run`, longest first.

    A step with none inside it, or with its longest parts only, has a name for all of its time, and so no gap.

    Args:
        run: The run.
        shortest: The shortest gap, in seconds.
        placed: The steps of the run at their places, if `walk` has returned them already.
    """
    steps = walk(run) if placed is None else placed
    found = [_gap(at, interval) for at in steps if _is_divided(at) for interval in uncovered(at)]
    return tuple(sorted((gap for gap in found if gap.seconds >= shortest), key=lambda gap: -gap.seconds))


def unnamed_share(run: Run, placed: Iterable[PlacedStep] | None = None) -> float:
    """Return the share of the time to ready, 0 to 1, in which a step that has others inside it ran none of them.

    Args:
        run: The run.
        placed: The steps of the run at their places, if `walk` has returned them already.
    """
    root = run.root
    whole = 0 if root is None else end_of(root, run) - root.start_ns
    if root is None or whole <= 0:
        return 0.0
    intervals = sorted(
        (interval.start_ns, min(interval.end_ns, end_of(root, run)))
        for at in (walk(run) if placed is None else placed)
        if _is_divided(at)
        for interval in uncovered(at)
    )
    unnamed, reached = 0, root.start_ns
    for start_ns, end_ns in intervals:  # two workers may have a gap at the same time
        unnamed += max(0, end_ns - max(start_ns, reached))
        reached = max(reached, end_ns)
    return unnamed / whole


def _is_divided(at: PlacedStep) -> bool:
    """Return whether the steps inside a step are meant to account for all of its time."""
    return bool(at.inside) and at.step.attributes.get(INNER_STEPS) != LONGEST


def _gap(at: PlacedStep, interval: Uncovered) -> Gap:
    return Gap(
        step=at.step,
        node=at.node,
        after=interval.after.step if interval.after is not None else None,
        before=interval.before.step if interval.before is not None else None,
        start_ns=interval.start_ns,
        seconds=(interval.end_ns - interval.start_ns) / 1e9,
    )
