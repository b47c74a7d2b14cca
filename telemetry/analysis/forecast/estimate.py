"""Continuing a start along the chain of an earlier one.

The chain of an earlier start is its critical path: the milestones that its time to ready depended on. The last one of them
that the present start has reached is its position. What the earlier start took from there on, scaled by how fast the present
machine has been so far, is an estimate of what is left; steps beside the chain that run longer than before add to it.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from phasebus.telemetry.analysis.forecast.past import PastRun
from phasebus.telemetry.analysis.forecast.progress import Progress, StepKey

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
    measured = _done(past, progress, begin, end)
    beside = []
    for step, began in progress.running.items():
        if step in past.innermost and step not in measured:
            span = past.spans[step]
            known = progress.left.get(step, began - elapsed)
            beside.append((known, span[1] - span[0], past.seconds - _next(past, span[1])))
    speed = _speed(past, begin, end, at, elapsed)
    link_speed = None
    if measured:
        last = min(measured, key=lambda step: measured[step])
        done, taken = measured[last], elapsed - progress.running.get(last, at)
        link_speed = _speed_of_work(past, done - past.spans[last][0], taken, speed)
        speed = _speed(past, done, end, elapsed, elapsed)
        begin, at = done, elapsed
    return Position(
        speed=speed.ratio * speed.certainty,
        busier=(1 - speed.certainty) * _bounded(math.log(progress.busyness / past.busyness)),
        link_speed=link_speed,
        waited=max(0.0, elapsed - at),
        link=end - begin,
        rest=past.seconds - end,
        beside=beside,
        skipped=missed / (index + 1) if index >= 0 else 0.0,
    )


def _done(past: PastRun, progress: Progress, begin: float, end: float) -> Mapping[StepKey, float]:
    """Return when `past` had used as much CPU time in each running step that ended in its present link, where that is known.

    The work of a process, such as its imports, takes the same CPU time on a busy machine, however long it takes by the clock.

    Args:
        past: The earlier start.
        progress: How far the present start is.
        begin: When the link began in the earlier start, in seconds.
        end: When it ended.
    """
    found: dict[StepKey, float] = {}
    for step, used in progress.cpu.items():
        if (whole := past.cpu.get(step, 0.0)) > 0:
            first, last = past.spans[step]
            done = first + min(1.0, used / whole) * (last - first)
            if begin < done and last <= end:
                found[step] = done
    return found


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


class _Speed(NamedTuple):
    """The logarithm of the ratio of the present times to the earlier ones, and how certain that is, 0 to 1."""

    ratio: float
    certainty: float


def _speed(past: PastRun, begin: float, end: float, at: float, elapsed: float) -> _Speed:
    """Return the speed up to the present position: at the time `at` in this start, and `begin` in the earlier one."""
    known, ratio = begin, math.log(at / begin) if begin > 0 and at > 0 else 0.0
    if elapsed > end > 0 and math.log(elapsed / end) > ratio:  # it should have been further by now
        known, ratio = end, math.log(elapsed / end)
    return _Speed(_bounded(ratio), known / (known + _UNCERTAIN_SHARE * past.seconds))


def _speed_of_work(past: PastRun, usual: float, taken: float, before: _Speed) -> float:
    """Return the logarithm of the speed of the present link alone, of which the CPU time shows how far it is.

    Args:
        past: The earlier start.
        usual: How long the work so far took in the earlier start, in seconds.
        taken: How long it has taken in this one.
        before: The speed up to this link.
    """
    certainty = usual / (usual + _UNCERTAIN_SHARE_OF_WORK * past.seconds)
    ratio = _bounded(math.log(taken / usual)) if taken > 0 and usual > 0 else 0.0
    return certainty * ratio + (1 - certainty) * before.certainty * before.ratio


def _bounded(ratio: float) -> float:
    return max(-_MAX_SPEED, min(_MAX_SPEED, ratio))


def _next(past: PastRun, seconds: float) -> float:
    """Return when the chain reached its first milestone at or after `seconds`."""
    number = bisect_left(past.times, seconds)
    return past.times[number] if number < len(past.times) else past.seconds
