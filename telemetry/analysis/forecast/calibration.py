"""A forecast from several earlier starts, with a range that is calibrated by leaving each of them out.

Each earlier start is forecast from the others at several moments. What comes out best decides how much of the present speed
the rest of a start will have, and how wrong those forecasts were decides how wide the range is (conformal prediction: Vovk,
Gammerman, Shafer, "Algorithmic Learning in a Random World", 2005; Barber et al., "Predictive inference with the jackknife+",
2021). With few earlier starts, assumed errors stand in for those that are not there.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist, median
from typing import Final, Literal

from phasebus.telemetry.analysis.forecast.estimate import Position, Weights, position, weighted
from phasebus.telemetry.analysis.forecast.past import PastRun
from phasebus.telemetry.analysis.forecast.progress import Progress

MAX_RUNS: Final = 10
"""How many earlier starts are used, the newest ones."""

Basis = Literal["same", "similar"]

_MOMENTS: Final = (0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9)
"""When earlier starts are forecast, as shares of their time."""

_WEIGHTS: Final = tuple(
    Weights(speed, busier) for busier in (0.0, 0.2, 0.4, 0.7) for speed in (0.0, 0.25, 0.5, 0.75, 1.0)
)
_USUAL_WEIGHTS: Final = Weights(0.5, 0.2)
"""Without trials, or where they do not matter: how busy a machine was says little of how busy it will be."""

_COVERAGE: Final = 0.8
_ASSUMED_ERROR: Final = {"same": 0.11, "similar": 0.4}
"""The standard deviation of the logarithm of a remaining time that is assumed where too little is known."""

_ASSUMED_RUNS: Final = 1.0
"""The number of earlier starts that an assumed error counts as."""

_NOISE: Final = 0.01
"""The difference between mean errors that is chance, as a share of the whole time."""

_OFFSET_SHARE: Final = 0.02
_MANY: Final = 3
_NEAR: Final = 0.25
_CORRECTION: Final = 0.25
_MOST: Final = 0.98

_HALF_NORMAL: Final = tuple(NormalDist().inv_cdf(0.5 + (number + 0.5) / 20) for number in range(10))
"""The sizes of ten errors with the standard deviation 1."""

_SHARES: Final = (0.0, 0.2, 0.5, 0.75, 0.9, 1.0)
_SCALES: Final = (1.0, 0.72, 0.7, 1.05, 1.6, 2.2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remaining:
    """How long a start will still take.

    Attributes:
        seconds: The time remaining.
        low: The lower end of the range that holds it in 80 of 100 starts.
        high: The upper end.
        runs: How many earlier starts this is from.
        basis: Whether they had the same configuration or a similar one.
    """

    seconds: float
    low: float
    high: float
    runs: int
    basis: Basis


class Forecast:
    """Forecasts one start from earlier ones.

    Args:
        history: The earlier starts, the newest first; at least one, of which `MAX_RUNS` are used.
        basis: Whether they had the same configuration or a similar one.
    """

    def __init__(self, history: Sequence[PastRun], basis: Basis = "same") -> None:
        self._history = history[:MAX_RUNS]
        self._basis = basis
        self._usual = median(each.seconds for each in self._history)
        trials = list(_trials(self._history, with_cpu=True))
        self._weights = _best_weights(trials) if len(self._history) >= _MANY else _USUAL_WEIGHTS
        if any(past.cpu for past in self._history):
            trials += _trials(self._history, with_cpu=False)
        residuals = [(each.moment, abs(each.residual(self._weights))) for each in trials]
        self._quantiles = [self._quantile(residuals, moment) for moment in _MOMENTS]

    def remaining(self, progress: Progress, elapsed: float) -> Remaining:
        """Return the time remaining `elapsed` seconds after the begin of the start."""
        positions = [position(past, progress, elapsed) for past in self._history]
        seconds = weighted(positions, self._weights)
        offset = _OFFSET_SHARE * self._usual
        share = elapsed / (elapsed + seconds) if elapsed + seconds > 0 else 1.0
        spread = _interpolated(share, _MOMENTS, self._quantiles) * _scale(share)
        overdue = max(0.0, median(each.waited - each.link for each in positions))
        return Remaining(
            seconds=seconds,
            low=max(0.0, (seconds + offset) * math.exp(-spread) - offset),
            high=(seconds + offset) * math.exp(spread) - offset + overdue,
            runs=len(self._history),
            basis=self._basis,
        )

    def _quantile(self, residuals: Sequence[tuple[float, float]], moment: float) -> float:
        """Return the quantile of the sizes of the errors, near a moment, that makes the range hold.

        Args:
            residuals: The moment and the size of each error.
            moment: The moment, as a share of the whole time.
        """
        number = len(self._history)
        assumed = _ASSUMED_ERROR[self._basis] * math.sqrt(1 + 1 / number)
        fewer = math.sqrt((1 + 1 / number) / (1 + 1 / max(1, number - 1)))  # each was forecast from one start less
        near = [(fewer * size, math.exp(-abs(at - moment) / _NEAR)) for at, size in residuals]
        whole = sum(share for _, share in near)
        pairs = [(size, number * share / whole) for size, share in near]
        pairs += [(assumed * size, _ASSUMED_RUNS / len(_HALF_NORMAL)) for size in _HALF_NORMAL]
        pairs.sort()
        correction = 1 + (_CORRECTION / number if near else 0.0)
        level = min(_MOST, _COVERAGE * correction) * sum(share for _, share in pairs)
        for size, share in pairs:
            level -= share
            if level <= 0:
                return size
        return pairs[-1][0]


@dataclass(frozen=True, slots=True)
class _Trial:
    """An earlier start at one moment, forecast from the others.

    Attributes:
        positions: Where it was on the chains of the others.
        moment: The moment, as a share of its time.
        elapsed: The same in seconds after its begin.
        left: What was left of it, in seconds.
        offset: Makes the logarithm of a time near 0 harmless, in seconds.
    """

    positions: Sequence[Position]
    moment: float
    elapsed: float
    left: float
    offset: float

    def error(self, weights: Weights) -> float:
        return weighted(self.positions, weights) - self.left

    def residual(self, weights: Weights) -> float:
        seconds = weighted(self.positions, weights)
        error = math.log((self.left + self.offset) / (seconds + self.offset))
        return error / _scale(self.elapsed / max(self.elapsed + seconds, 1e-9))


def _trials(history: Sequence[PastRun], *, with_cpu: bool) -> Iterator[_Trial]:
    """Yield the trials of all earlier starts.

    Args:
        history: The earlier starts.
        with_cpu: Whether the CPU time of a running step is known. It is not how even it was: a trial with it is too good, and
            one without it too bad.
    """
    if len(history) < 2:
        return
    usual = median(each.seconds for each in history)
    for number, past in enumerate(history):
        others = [*history[:number], *history[number + 1 :]]
        for moment in _MOMENTS:
            elapsed = moment * past.seconds
            progress = past.progress_at(elapsed)
            if not with_cpu:
                progress.cpu.clear()
            positions = [position(other, progress, elapsed) for other in others]
            yield _Trial(positions, moment, elapsed, past.seconds - elapsed, _OFFSET_SHARE * usual)


def _best_weights(trials: Sequence[_Trial]) -> Weights:
    """Return the weights with the smallest errors; of almost equal ones, those nearest to the usual ones."""
    noise = _NOISE * sum(each.elapsed + each.left for each in trials)

    def cost(weights: Weights) -> float:
        distance = sum(abs(one - usual) for one, usual in zip(weights, _USUAL_WEIGHTS, strict=True))
        return sum(abs(each.error(weights)) for each in trials) + noise * distance

    return min(_WEIGHTS, key=cost)


def _scale(share: float) -> float:
    """Return how large the relative error of a forecast usually is, compared with that at the begin of a start.

    Args:
        share: How far the start is, 0 to 1.
    """
    return _interpolated(share, _SHARES, _SCALES)


def _interpolated(at: float, points: Sequence[float], values: Sequence[float]) -> float:
    number = min(max(bisect_right(points, at), 1), len(points) - 1)
    low, high = points[number - 1], points[number]
    part = min(1.0, max(0.0, (at - low) / (high - low)))
    return values[number - 1] + part * (values[number] - values[number - 1])
