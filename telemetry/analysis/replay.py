"""Replay: the same run, had some of its steps taken another time.

The order of a run says what waited for what: inside a step, each part begins after the parts that had ended by then, and as
much later as it did. So a shorter step moves what followed it forward, up to what else that waited for. A part that ran
beside the shortened one may have waited for it, or not: it is taken to have waited only for what had ended before it
began. What-if analyses of traces do the same (Curtsinger and Berger, SOSP 2015, run it instead of replaying it).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from phasebus.telemetry.analysis.nesting import PlacedStep, nest
from phasebus.telemetry.journal import Run

Factor = Callable[[PlacedStep], float]
"""How long a step's own time is in the replay, as a multiple of what it was: 0 for none, 1 for the same."""


def replay(run: Run, factor: Factor) -> Run:
    """Return `run` with the own time of each step multiplied by its `factor`.

    The own time of a step is that during which none of the steps inside it runs. Steps that outlive the one they lie in
    keep their duration.

    Args:
        run: A run; steps that still run last until its end.
        factor: Returns the multiple for a step.
    """
    tops = nest(run)
    inside_out = [at for top in tops for at in top.walk()][::-1]
    offsets: dict[str, int] = {}
    lengths: dict[str, int] = {}
    for at in inside_out:
        lengths[at.step.id] = _arrange(at, factor(at), offsets, lengths)
    starts: dict[str, int] = {top.step.id: top.start_ns for top in tops}
    for at in reversed(inside_out):
        if at.outer is not None:
            starts[at.step.id] = starts[at.outer.step.id] + offsets[at.step.id]
    steps = tuple(
        replace(step, start_ns=starts[step.id], end_ns=starts[step.id] + lengths[step.id]) for step in run.steps
    )
    end = max((step.end_ns for step in steps if step.end_ns is not None), default=run.end_ns)
    return replace(run, steps=tuple(sorted(steps, key=lambda step: step.start_ns)), end_ns=end)


def _arrange(at: PlacedStep, factor: float, offsets: dict[str, int], lengths: Mapping[str, int]) -> int:
    """Place the steps inside `at`, as offsets from its start; return its new duration. All in nanoseconds."""
    by_end = sorted(at.inside, key=lambda each: each.end_ns)
    ended = 0
    was, now = at.start_ns, 0  # when the last of the parts that had ended did so, then and in the replay
    for part in at.inside:  # in the order of their starts
        while ended < len(by_end) and by_end[ended].end_ns <= part.start_ns and by_end[ended].step.id in offsets:
            was, now = _latest(by_end[ended], was, now, offsets, lengths)
            ended += 1
        pause = part.start_ns - was
        offsets[part.step.id] = now + (round(pause * factor) if pause > 0 else pause)  # some begin before their parent
    while ended < len(by_end) and by_end[ended].end_ns <= at.end_ns:
        was, now = _latest(by_end[ended], was, now, offsets, lengths)
        ended += 1
    return now + round((at.end_ns - was) * factor)


def _latest(
    part: PlacedStep, was: int, now: int, offsets: Mapping[str, int], lengths: Mapping[str, int]
) -> tuple[int, int]:
    return max(was, part.end_ns), max(now, offsets[part.step.id] + lengths[part.step.id])
