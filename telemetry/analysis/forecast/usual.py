"""How long each step usually takes, and which ones usually follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Final

from phasebus.telemetry.analysis.forecast.past import PastRun
from phasebus.telemetry.analysis.forecast.progress import Milestone, Progress, StepKey

_MANY: Final = 6
"""With at least this many durations, the range is that of their inner 80 %; otherwise that of all, and a margin."""

_MARGIN: Final = 0.5

_NOTABLE_SHARE: Final = 0.01
"""A step that usually takes less of the start is not named before it begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usual:
    """The usual duration of a step.

    Attributes:
        seconds: The median.
        low: The lower end of the range of usual durations.
        high: The upper end.
        runs: In how many earlier starts it ran.
    """

    seconds: float
    low: float
    high: float
    runs: int


def usual_durations(history: Sequence[PastRun]) -> Mapping[StepKey, Usual]:
    """Return the usual duration of each step that at least half of the earlier starts had."""
    durations: dict[StepKey, list[float]] = {}
    for past in history:
        for step, (begin, end) in past.spans.items():
            durations.setdefault(step, []).append(end - begin)
    return {step: _usual(found) for step, found in durations.items() if 2 * len(found) >= len(history)}


def usual_order(history: Sequence[PastRun], usual: Mapping[StepKey, Usual]) -> Sequence[StepKey]:
    """Return the notable steps of `usual` in the order in which they usually begin, without those that contain others.

    An innermost one that ends together with a step of its process around it is none: it is reported only at its end.
    """
    least = _NOTABLE_SHARE * median(past.seconds for past in history)
    begins: dict[StepKey, list[float]] = {}
    for past in history:
        ends = {(step.process, end) for step, (_, end) in past.spans.items() if step not in past.innermost}
        spans = {
            step: (begin, end)
            for step, (begin, end) in past.spans.items()
            if step in usual
            and usual[step].seconds >= least
            and not (step in past.innermost and (step.process, end) in ends)
        }
        for step, (begin, end) in spans.items():
            inside = (other for other, span in spans.items() if other != step and begin <= span[0] and span[1] <= end)
            if step in past.innermost or next(inside, None) is None:
                begins.setdefault(step, []).append(begin)
    often = [step for step, found in begins.items() if 2 * len(found) >= len(history)]
    return sorted(often, key=lambda step: (median(begins[step]), step))


def following(order: Sequence[StepKey], progress: Progress) -> Sequence[StepKey]:
    """Return those of the steps in `order` that come after the last one that has begun."""
    begun = [number for number, step in enumerate(order) if Milestone(step, ended=False) in progress.reached]
    return order[begun[-1] + 1 :] if begun else order


def _usual(found: Sequence[float]) -> Usual:
    if len(found) >= _MANY:
        tenths = quantiles(found, n=10, method="inclusive")
        low, high = tenths[0], tenths[-1]
    else:
        low, high = min(found) / (1 + _MARGIN / len(found)), max(found) * (1 + _MARGIN / len(found))
    return Usual(seconds=median(found), low=low, high=high, runs=len(found))
