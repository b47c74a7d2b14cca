"""The earlier starts that a new one is compared with, read from their journals."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from phasebus.telemetry.analysis.forecast import PastRun, past_run
from phasebus.telemetry.analysis.forecast.calibration import MAX_RUNS, Basis
from phasebus.telemetry.history.configuration import Configuration, busyness_of
from phasebus.telemetry.journal import JournalError, RunBeginning, beginning_of, read_journal, runs_folder
from phasebus.telemetry.journal.location import preferred

_MAX_SIMILAR: Final = 5
_MAX_JOURNALS: Final = 300
_SECONDS: Final = 3.0
"""The longest time that is spent on reading, in seconds."""

_WEIGHTS: Final[Mapping[str, float]] = {"model": 3.0, "engine": 100.0, "nodes": 3.0, "replicas": 3.0, "machine": 2.0}
"""By the first part of a factor's name: how much two configurations differ in which it differs; 1 for any other."""

_MAX_DISTANCE: Final = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierStarts:
    """Earlier starts like a new one.

    Attributes:
        runs: The starts, the newest first; at least one.
        basis: Whether they have the same configuration, or a similar one.
    """

    runs: Sequence[PastRun]
    basis: Basis


def earlier_starts(
    kind: str,
    attributes: Mapping[str, Any],
    *,
    run: str = "",
    folder: Path | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> EarlierStarts | None:
    """Return the starts that became ready with the same configuration, else with the most similar one; None without any.

    Args:
        kind: The kind of the outermost step.
        attributes: Its attributes, with the configuration.
        run: The id of the new run, which is left out.
        folder: The folder of the journals; by default that of this user.
        clock: Returns the time in seconds.
    """
    configuration = Configuration.from_attributes(attributes)
    if configuration is None:
        return None
    deadline = clock() + _SECONDS
    same: list[PastRun] = []
    others: list[tuple[float, RunBeginning]] = []
    for each in _beginnings(folder or runs_folder()):
        if len(same) == MAX_RUNS or clock() > deadline:
            break
        theirs = Configuration.from_attributes(each.attributes)
        if each.run == run or each.kind != kind or theirs is None:
            continue
        if theirs.fingerprint == configuration.fingerprint:
            same += _past(each)
        elif (distance := _distance(theirs, configuration)) <= _MAX_DISTANCE:
            others.append((distance, each))
    if same:
        return EarlierStarts(runs=same, basis="same")
    similar: list[PastRun] = []
    others.sort(key=lambda other: other[0])  # the newest first among equals
    for distance, each in others:
        if len(similar) == _MAX_SIMILAR or clock() > deadline or (similar and distance > others[0][0]):
            break
        similar += _past(each)
    return EarlierStarts(runs=similar, basis="similar") if similar else None


def _beginnings(folder: Path) -> Iterator[RunBeginning]:
    try:
        journals = preferred(each for each in folder.iterdir() if each.suffix == ".jsonl")
    except OSError:
        return
    for journal in journals[: -_MAX_JOURNALS - 1 : -1]:
        with suppress(JournalError):
            yield beginning_of(journal)


def _past(beginning: RunBeginning) -> list[PastRun]:
    try:
        past = past_run(read_journal(beginning.path, until_ready=True), busyness_of(beginning.attributes))
    except JournalError:
        return []
    return [] if past is None else [past]


def _distance(one: Configuration, other: Configuration) -> float:
    return sum(_WEIGHTS.get(name.partition(".")[0], 1.0) for name in one.difference(other))
