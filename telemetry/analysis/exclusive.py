"""Exclusive time: the duration of a step, divided among the steps inside it so that the parts add up to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from phasebus.telemetry.analysis.nesting import PlacedStep, nest
from phasebus.telemetry.journal import RecordedStep, Run

UNATTRIBUTED: Final = "unattributed"
"""The name under which time is returned during which no step ran."""


def exclusive_seconds(whole: RecordedStep, parts: Sequence[RecordedStep]) -> Mapping[str, float]:
    """Return how the duration of `whole` divides among the names of `parts`, in seconds; the values add up to it.

    Each moment belongs to the innermost steps that run then. Of several that run in parallel, each gets the same share, so
    that two workers that load weights for a minute make a minute, not two. A step that waits gets a share only while
    nothing else runs.

    Args:
        whole: A step that has ended.
        parts: The steps to divide it among, such as the steps of an engine; the parts of a part included.
    """
    assert whole.end_ns is not None  # noqa: S101  # only ended steps are divided
    begin, end = whole.start_ns, whole.end_ns
    run = Run(
        path=Path(),
        run="",
        node=whole.node,
        trace="",
        phasebus="",
        start_ns=begin,
        end_ns=end,
        state="closed",
        steps=tuple(sorted((whole, *parts), key=lambda step: step.start_ns)),
        moments=(),
    )
    placed = [at for top in nest(run) for at in top.walk() if at.step is not whole]
    moments = sorted(
        (moment, starts, number)
        for number, at in enumerate(placed)
        if max(at.start_ns, begin) < min(at.end_ns, end)
        for moment, starts in ((max(at.start_ns, begin), True), (min(at.end_ns, end), False))
    )
    seconds = dict.fromkeys([UNATTRIBUTED, *(part.name for part in parts)], 0.0)
    running: dict[int, PlacedStep] = {}
    inside = {id(at): 0 for at in placed}
    reached = begin
    for moment, starts, number in moments:
        if moment > reached:
            _divide((moment - reached) / 1e9, running, inside, seconds)
            reached = moment
        at = placed[number]
        if starts:
            running[number] = at
        else:
            del running[number]
        if id(at.outer) in inside:
            inside[id(at.outer)] += 1 if starts else -1
    _divide((end - reached) / 1e9, running, inside, seconds)
    return seconds


def _divide(
    amount: float, running: Mapping[int, PlacedStep], inside: Mapping[int, int], seconds: dict[str, float]
) -> None:
    """Add `amount` seconds to the names of the running steps inside which no other step runs."""
    innermost = [at for at in running.values() if not inside[id(at)]]
    working = [at for at in innermost if not at.waits] or innermost
    names = [at.step.name for at in working] or [UNATTRIBUTED]
    for name in names:
        seconds[name] += amount / len(names)
