"""Continuing a start along the chain of an earlier one.

The chain of an earlier start is its critical path: the milestones that its time to ready depended on. The last one of them
that the present start has reached is its position. What the earlier start took from there on, scaled by how fast the present
machine has been so far, is an estimate of what is left; steps beside the chain that run longer than before add to it.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from phasebus.telemetry.analysis.forecast.past import PastRun
from phasebus.telemetry.analysis.forecast.progress import Progress

_UNCERTAIN_SHARE: Final = 0.05
"""The share of the whole time after which half of a difference in speed is attributed to the machine."""

_UNCERTAIN_SHARE_OF_WORK: Final = 0.02
"""Likewise where the CPU time shows how far it is."""

_MAX_SPEED: Final = math.log(4)
_RECENCY: Final = 0.9
_MISMATCH: Final = 4.0


class Weights(NamedTuple):
    """What the rest of a start depends on, each from 0 to 1.

    Attributes:
        speed: How much of the speed so far the rest will have.
        busier: How much longer it takes on a machine that is busier at its begin.
    """

    speed: float
    busier: float


@dataclass(frozen=True, slots=True)
class Position:
    """Where a start is on the chain of an earlier one.

    Attributes:
        speed: The logarithm of how much slower this start has been so far; shrunk where little is known.
        busier: The logarithm of how much busier the machine was at its begin; shrunk where the speed is known.
        link_speed: The same for the present link alone, where the CPU time of its process shows it; else None.
        waited: How long the present link has taken so far, in seconds.
        link: How long it took in the earlier start.
        rest: How long the links after it took.
        beside: For each innermost running step: what is left of it if it reports its progress (else, negative, how long it
            has run), how long it took, and how long the earlier start went on after the link in which it ended.
        skipped: The share of the earlier milestones that this start has not reached.
    """

    speed: float
    busier: float
    link_speed: float | None
    waited: float
    link: float
    rest: float
    beside: Sequence[tuple[float, float, float]]
    skipped: float

    def seconds(self, weights: Weights) -> float:
        """Return the estimate of the remaining time."""
        factor = math.exp(weights.speed * self.speed + weights.busier * self.busier)
        link_factor = factor if self.link_speed is None else math.exp(self.link_speed)
        estimate = max(0.0, link_factor * self.link - self.waited) + factor * self.rest
        for known, usual, after in self.beside:
            left = known if known >= 0 else factor * usual + known
            if left > 0:
                estimate = max(estimate, left + factor * after)
        return estimate


def position(past: PastRun, progress: Progress, elapsed: float) -> Position:
    """Return where a start is on the chain of `past`, `elapsed` seconds after its begin."""
    chain = past.chain
    index, at = -1, 0.0
    for number in range(len(chain) - 1, -1, -1):
        if (reached := progress.reached.get(chain[number][0])) is not None:
            index, at = number, reached
            break
    missed = sum(milestone not in progress.reached for milestone, _ in chain[: index + 1])
    begin = chain[index][1] if index >= 0 else 0.0
    end = chain[index + 1][1] if index + 1 < len(chain) else past.seconds
    beside = []
    for step, began in progress.running.items():
        if step in past.innermost:
            span = past.spans[step]
            known = progress.left.get(step, began - elapsed)
            beside.append((known, span[1] - span[0], past.seconds - _next(past, span[1])))
    if (done := _done(past, progress, begin, end)) is not None:
        begin, at = done, elapsed
    uncertain = _UNCERTAIN_SHARE if done is None else _UNCERTAIN_SHARE_OF_WORK
    ratio, certainty = _speed(past, begin, end, at, elapsed, uncertain)
    return Position(
        speed=certainty * ratio,
        busier=(1 - certainty) * _bounded(math.log(progress.busyness / past.busyness)),
        link_speed=None if done is None else certainty * ratio,
        waited=max(0.0, elapsed - at),
        link=end - begin,
        rest=past.seconds - end,
        beside=beside,
        skipped=missed / (index + 1) if index >= 0 else 0.0,
    )


def _done(past: PastRun, progress: Progress, begin: float, end: float) -> float | None:
    """Return when `past` had used as much CPU time in its present link; None if that is not known.

    The work of a process, such as its imports, takes the same CPU time on a busy machine, however long it takes by the clock.

    Args:
        past: The earlier start.
        progress: How far the present start is.
        begin: When the link began in the earlier start, in seconds.
        end: When it ended.
    """
    found: list[float] = []
    for step, used in progress.cpu.items():
        if (whole := past.cpu.get(step, 0.0)) > 0:
            first, last = past.spans[step]
            done = first + min(1.0, used / whole) * (last - first)
            if begin < done and last <= end:
                found.append(done)
    return min(found, default=None)


def weighted(positions: Sequence[Position], weights: Weights) -> float:
    """Return the weighted median of the estimates from several earlier starts, the newest first."""
    estimates = sorted(
        (each.seconds(weights), _RECENCY**age * math.exp(-_MISMATCH * each.skipped))
        for age, each in enumerate(positions)
    )
    half = sum(share for _, share in estimates) / 2
    passed = 0.0
    for number, (seconds, share) in enumerate(estimates):
        passed += share
        if passed > half or number == len(estimates) - 1:
            return seconds
        if passed == half:
            return (seconds + estimates[number + 1][0]) / 2
    return 0.0


def _speed(past: PastRun, begin: float, end: float, at: float, elapsed: float, uncertain: float) -> tuple[float, float]:
    """Return the logarithm of the ratio of the present times to the earlier ones, up to the present position.

    The second value is how certain it is, 0 to 1: one half after the share `uncertain` of the whole time.
    """
    known, ratio = begin, math.log(at / begin) if begin > 0 and at > 0 else 0.0
    if elapsed > end > 0 and math.log(elapsed / end) > ratio:  # it should have been further by now
        known, ratio = end, math.log(elapsed / end)
    return _bounded(ratio), known / (known + uncertain * past.seconds)


def _bounded(ratio: float) -> float:
    return max(-_MAX_SPEED, min(_MAX_SPEED, ratio))


def _next(past: PastRun, seconds: float) -> float:
    """Return when the chain reached its first milestone at or after `seconds`."""
    number = bisect_left(past.times, seconds)
    return past.times[number] if number < len(past.times) else past.seconds
