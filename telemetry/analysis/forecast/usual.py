"""How long each step usually takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Final

from phasebus.telemetry.analysis.forecast.past import PastRun
from phasebus.telemetry.analysis.forecast.progress import StepKey

_MANY: Final = 6
"""With at least this many durations, the range is that of their inner 80 %; otherwise that of all, and a margin."""

_MARGIN: Final = 0.5


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


def _usual(found: Sequence[float]) -> Usual:
    if len(found) >= _MANY:
        tenths = quantiles(found, n=10, method="inclusive")
        low, high = tenths[0], tenths[-1]
    else:
        low, high = min(found) / (1 + _MARGIN / len(found)), max(found) * (1 + _MARGIN / len(found))
    return Usual(seconds=median(found), low=low, high=high, runs=len(found))
