"""Comparison: two series of runs, step by step, with the shifts that chance does not explain."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from phasebus.telemetry.analysis.nesting import uncovered, walk
from phasebus.telemetry.analysis.rank_test import probability_of_larger, smallest_probability
from phasebus.telemetry.journal import RecordedStep, Run

WHOLE: Final = ("start", "", "")
"""The kind, name and process of the row for the time to ready."""

FALSE_ALARMS: Final = 0.01
"""The probability that a comparison of equal series finds a slower start or step; that of a faster one is the same."""

_SHARE_OF_WHOLE: Final = 0.7
"""The share of `FALSE_ALARMS` that the time to ready has; the steps share the rest."""

SMALLEST_SHARE: Final = 0.02
"""The smallest shift that counts, as a share of the step's own duration before."""

_SMALLEST_STEP: Final = 0.005
"""Shorter steps are not compared; a share of the time to ready."""

_NOT_COMPARED: Final = frozenset({"file"})
"""The kinds whose steps have other names in each run, or too many."""

_NAMED_BY_PLACE: Final = frozenset({"cluster", "node", "engine"})
"""The kinds whose names are those of machines and models, which may differ between series."""

_NUMBER: Final = re.compile(r"(_?[A-Z]*\d+)+$")
"""What distinguishes the processes of a sort: ``_TP0`` in ``Worker_TP0``."""

Key = tuple[str, str, str]
"""The kind of a step, its name, and the sort of process it ran in; "" if that is not recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """How the durations of one sort of step differ between two series.

    Attributes:
        kind: The kind of step; ``"start"`` for the time to ready.
        name: Its name.
        process: The sort of process it runs in, such as ``"Worker"``; "" if that is not recorded.
        before: The median in the first series, in seconds.
        after: The median in the second one.
        own_change: The change of the median time during which none of the steps inside it ran, in seconds.
        probability: That equal series differ as much in this step, in this direction.
        significant: Whether the shift counts, with all steps of the comparison considered.
    """

    kind: str
    name: str
    process: str
    before: float
    after: float
    own_change: float
    probability: float
    significant: bool

    @property
    def change(self) -> float:
        """How much longer it takes in the second series, in seconds."""
        return self.after - self.before

    @property
    def share(self) -> float:
        """The change as a share of the duration in the first series."""
        return self.change / self.before if self.before else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two series of runs.

    Attributes:
        runs: How many runs each has.
        whole: The time to ready.
        steps: The steps, the largest change of own time first, whether longer or shorter.
        slower: Whether the start, or a step, is slower than chance explains.
        culprit: The step that explains most of the change; None without a significant change.
        enough: Whether the series have enough runs to find a shift of the time to ready at all.
    """

    runs: tuple[int, int]
    whole: Shift
    steps: tuple[Shift, ...]
    slower: bool
    culprit: Shift | None
    enough: bool


def compare(before: Sequence[Run], after: Sequence[Run], smallest_share: float = SMALLEST_SHARE) -> Comparison:
    """Return how the starts of two series differ: in whole, and by step.

    The time to ready and each sort of step are compared by a rank test; `FALSE_ALARMS` holds for all of them together (Holm,
    Scandinavian Journal of Statistics 1979). The steps of one sort in one process count together; of several processes
    of a sort, and several nodes, the slowest one counts. A run without a step took no time for it.

    Args:
        before: The first series, of runs that have become ready.
        after: The second one.
        smallest_share: The smallest shift that counts, as a share of the duration before.

    Raises:
        ValueError: A series has no run.
    """
    if not before or not after:
        raise ValueError("a series has no run that has become ready")
    series = [[_durations(run) for run in runs] for runs in (before, after)]
    rows = [_Row(key, *_samples(key, series)) for key in _compared(series)]
    found = _significant(rows, smallest_share)
    shifts = {row.key: row.shift(row.key in found) for row in rows}
    whole = shifts.pop(WHOLE)
    steps = tuple(sorted(shifts.values(), key=lambda shift: -abs(shift.own_change)))
    slower = [shift for shift in (whole, *steps) if shift.significant and shift.change > 0]
    return Comparison(
        runs=(len(before), len(after)),
        whole=whole,
        steps=steps,
        slower=bool(slower),
        culprit=_culprit(whole, steps),
        enough=smallest_probability(len(before), len(after)) <= _SHARE_OF_WHOLE * FALSE_ALARMS,
    )


class _Row:
    def __init__(self, key: Key, before: list[float], after: list[float], own_change: float) -> None:
        self.key, self.before, self.after, self.own_change = key, before, after, own_change
        self.change = median(after) - median(before)
        pair = (before, after) if self.change >= 0 else (after, before)
        self.probability = probability_of_larger(*pair)

    def shift(self, significant: bool) -> Shift:
        return Shift(
            kind=self.key[0],
            name=self.key[1],
            process=self.key[2],
            before=median(self.before),
            after=median(self.after),
            own_change=self.own_change,
            probability=self.probability,
            significant=significant,
        )


def _significant(rows: Sequence[_Row], smallest_share: float) -> set[Key]:
    """Return the rows whose shift counts: first the whole, by most of the probability, and then the steps, by the rest."""
    steps = [row for row in rows if row.key != WHOLE]
    (whole,) = (row for row in rows if row.key == WHOLE)
    unlikely = [whole] if whole.probability <= _SHARE_OF_WHOLE * FALSE_ALARMS else []
    for number, row in enumerate(sorted(steps, key=lambda row: row.probability)):
        if row.probability * (len(steps) - number) > (1 - _SHARE_OF_WHOLE) * FALSE_ALARMS:
            break
        unlikely.append(row)
    return {row.key for row in unlikely if abs(row.change) >= smallest_share * median(row.before)}


def _culprit(whole: Shift, steps: Sequence[Shift]) -> Shift | None:
    """Return the step whose own time changed most in the direction of the whole, if that or a step changed."""
    sign = 1 if whole.change >= 0 or not whole.significant else -1
    shifted = [shift for shift in steps if sign * shift.own_change > 0 and (whole.significant or shift.significant)]
    return max(shifted, key=lambda shift: sign * shift.own_change, default=None)


_Durations = dict[Key, tuple[float, float]]
"""By sort of step: the duration, and the part of it during which none of the steps inside ran; in seconds."""

_ABSENT: Final = (0.0, 0.0)
"""What a run has of a step that it does not have."""


def _durations(run: Run) -> _Durations:
    places: dict[Key, dict[tuple[str, str], list[float]]] = {}
    for at in walk(run):
        if at.step.kind in _NOT_COMPARED:
            continue
        key = WHOLE if run.root is not None and at.step.id == run.root.id else _key(at.step)
        sums = places.setdefault(key, {}).setdefault((at.node, _process(at.step)), [0.0, 0.0])
        if not any(_key(each.step) == key for each in at.outward() if each is not at):
            sums[0] += at.seconds
        sums[1] += sum(each.end_ns - each.start_ns for each in uncovered(at)) / 1e9
    return {key: max((whole, own) for whole, own in sums.values()) for key, sums in places.items()}


def _key(step: RecordedStep) -> Key:
    name = "" if step.kind in _NAMED_BY_PLACE else step.name
    return step.kind, name, _NUMBER.sub("", _process(step))


def _process(step: RecordedStep) -> str:
    return str(step.attributes.get("process", ""))


def _compared(series: Sequence[Sequence[_Durations]]) -> list[Key]:
    """Return what most runs of a series have, and is not very short in both."""
    ready = median(each[WHOLE][0] for runs in series for each in runs)
    keys = dict.fromkeys(key for runs in series for each in runs for key in each)
    found = [WHOLE]
    for key in keys:
        common = any(2 * sum(key in each for each in runs) > len(runs) for runs in series)
        longest = max(median(each.get(key, _ABSENT)[0] for each in runs) for runs in series)
        if key != WHOLE and common and longest >= _SMALLEST_STEP * ready:
            found.append(key)
    return found


def _samples(key: Key, series: Sequence[Sequence[_Durations]]) -> tuple[list[float], list[float], float]:
    first, second = [[each.get(key, _ABSENT) for each in runs] for runs in series]
    own_change = median(own for _, own in second) - median(own for _, own in first)
    return [whole for whole, _ in first], [whole for whole, _ in second], own_change
