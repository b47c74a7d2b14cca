"""How good forecasts of the time remaining are: over made-up starts, and over recorded real ones."""

from __future__ import annotations

import json
import math
import os
import time
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import median
from typing import NamedTuple

from phasebus.telemetry.analysis.forecast import Forecast, PastRun, Progress, past_run
from phasebus.telemetry.history import Configuration, busyness_of, recorded_runs
from phasebus.telemetry.journal import read_journal
from tests.benchmarks.measuring import Number, Table
from tests.support.simulated_starts import Shape

JOURNALS = "PHASEBUS_BENCH_RUNS"
"""The variable with a folder of journals of real starts, in place of the recorded ones."""

RECORDED = Path(__file__).parent / "recorded"
QUIET, BUSY = RECORDED / "quiet", RECORDED / "busy"
"""Starts beside which nothing else ran, and starts beside which other work came and went."""

SIMULATED = 1000
EARLIER = (1, 2, 3, 5, 10)
MOMENTS = (0.0, 0.25, 0.5, 0.75, 0.9)
MOST_ERROR = {0.0: 10.0, 0.5: 5.0}
MOST_SECONDS = 0.4
COVERAGE, MOST_OFF = 80.0, 5.0

Curve = Sequence[tuple[float, float]]
"""Seconds after the begin of a start, and the CPU time that the process importing the engine has used; empty if not sampled."""


class Recorded(NamedTuple):
    """A recorded start, and its sampled CPU times."""

    start: PastRun
    curve: Curve


Case = tuple[Sequence[PastRun], PastRun, Curve]


@dataclass
class Errors:
    """What forecasts at one moment came to.

    Attributes:
        errors: The sizes of the errors, in percent of the whole time.
        held: Whether each range held the time remaining.
        widths: The widths of the ranges, in percent of the whole time.
    """

    errors: list[float] = field(default_factory=list)
    held: list[bool] = field(default_factory=list)
    widths: list[float] = field(default_factory=list)

    @property
    def error(self) -> float:
        """The median error, in percent."""
        return median(self.errors)

    @property
    def coverage(self) -> float:
        """The share of the ranges that held, in percent."""
        return 100 * sum(self.held) / len(self.held)


def tables() -> Iterable[Table]:
    """Measure and yield the tables."""
    yield simulated()
    if JOURNALS in os.environ:
        yield from real(Path(os.environ[JOURNALS]), "starts", marked=False)
    else:
        yield from real(QUIET, "starts beside which nothing else ran", marked=True)
        yield from real(BUSY, "starts on a busy machine", marked=False)
    yield cost()


def simulated() -> Table:
    """Forecast 1,000 made-up starts of as many configurations, from different numbers of earlier ones."""
    table = _table(f"Time remaining of {SIMULATED} simulated starts, in percent of the whole time", "earlier starts")
    for number in EARLIER:
        chance = Random(number)
        cases: list[Case] = []
        for _ in range(SIMULATED):
            shape = Shape.drawn(chance)
            present, *earlier = (shape.start(chance) for _ in range(number + 1))
            cases.append((earlier, present, ()))
        _add(table, str(number), _measured(cases), marked=number == 5)
    table.notes += [
        "Each start has 3 to 7 phases of 1 to 3 parallel branches; the machine's speed and each step vary by 2 to 15 %.",
        "Up to 10 % of the starts have one step that takes 1.5 to 3 times as long.",
        "The marks are those for 5 earlier starts; a range is to hold in 75 to 85 % of the cases.",
    ]
    return table


def real(folder: Path, what: str, *, marked: bool) -> Iterator[Table]:
    """Forecast each recorded start from the others of its configuration, and yield a table; none without starts.

    Args:
        folder: The folder of the journals.
        what: The plural of what was recorded, for the table's title.
        marked: Whether the row of all starts is to meet the marks.
    """
    groups: dict[str, list[Recorded]] = {}
    names: dict[str, str] = {}
    for summary in recorded_runs(folder):
        configuration = Configuration.from_attributes(summary.attributes)
        found = None
        if configuration is not None and summary.outcome == "finished":
            found = past_run(read_journal(summary.path, until_ready=True), busyness_of(summary.attributes))
        if configuration is not None and found is not None:
            groups.setdefault(configuration.fingerprint, []).append(Recorded(found, _sampled(summary.path)))
            names[configuration.fingerprint] = _described(configuration)
    groups = {name: starts for name, starts in groups.items() if len(starts) > 2}
    if not groups:
        return
    number = sum(map(len, groups.values()))
    table = _table(f"Time remaining of {number} real {what}, in percent of the whole time", "configuration")
    for name, starts in groups.items():
        seconds = sorted(each.start.seconds for each in starts)
        label = f"{names[name]}: {len(starts)} starts of {seconds[0]:.0f} to {seconds[-1]:.0f} s"
        _add(table, label, _measured(_each_from_the_others(starts)), marked=False)
    every = [case for starts in groups.values() for case in _each_from_the_others(starts)]
    _add(table, "all", _measured(every), marked=marked)
    table.notes.append("CPU times were sampled every half second while the starts ran.")
    table.notes.append(f"Each start is forecast from the others of its configuration; {JOURNALS} names other journals.")
    yield table


def _each_from_the_others(starts: Sequence[Recorded]) -> list[Case]:
    return [
        ([other.start for other in (*starts[:at], *starts[at + 1 :])], each.start, each.curve)
        for at, each in enumerate(starts)
    ]


def cost() -> Table:
    """Measure what a forecast costs."""
    chance = Random(0)
    shape = Shape(parts=[[[1.0] * 6] * 3] * 7, machine=0.1, noise=0.1, slow=0.0)
    present, *earlier = (shape.start(chance) for _ in range(11))
    began = time.perf_counter()
    forecast = Forecast(earlier)
    fitted = time.perf_counter() - began
    progress = present.progress_at(0.5 * present.seconds)
    began = time.perf_counter()
    for _ in range(100):
        forecast.remaining(progress, 0.5 * present.seconds)
    once = (time.perf_counter() - began) / 100
    table = Table("The cost of a forecast from 10 starts of 133 steps", ["work", "time"])
    table.rows.append(["comparing the earlier starts, once", Number(1000 * fitted, " ms", 1000 * MOST_SECONDS)])
    table.rows.append(["one forecast, at most four in a second", Number(1000 * once, " ms", 5.0)])
    return table


def _table(title: str, first: str) -> Table:
    columns = [f"at {moment:.0%}" for moment in MOMENTS]
    return Table(
        title, [first, *(f"error {each}" for each in columns), *(f"holds {each}" for each in columns), "holds"]
    )


def _add(table: Table, name: str, found: dict[float, Errors], *, marked: bool) -> None:
    errors = [
        Number(each.error, " %", MOST_ERROR.get(moment) if marked else None, f"± {median(each.widths) / 2:.0f}")
        for moment, each in found.items()
    ]
    held = [held for each in found.values() for held in each.held]
    coverages = [Number(each.coverage, " %") for each in found.values()]
    whole = 100 * sum(held) / len(held)
    off = Number(abs(whole - COVERAGE), "", MOST_OFF if marked else None, f"holds {whole:.1f} %")
    table.rows.append([name, *errors, *coverages, off])


def _measured(cases: Iterable[Case]) -> dict[float, Errors]:
    found = {moment: Errors() for moment in MOMENTS}
    for earlier, present, curve in cases:
        forecast = Forecast(earlier)
        for moment, errors in found.items():
            elapsed = moment * present.seconds
            remaining = forecast.remaining(_progress(present, elapsed, curve), elapsed)
            left = present.seconds - elapsed
            errors.errors.append(100 * abs(remaining.seconds - left) / present.seconds)
            errors.held.append(remaining.low <= left <= remaining.high)
            errors.widths.append(100 * (remaining.high - remaining.low) / present.seconds)
    return found


def _progress(start: PastRun, elapsed: float, curve: Curve) -> Progress:
    """Return how far a start was, with the CPU time that was sampled then in place of an even one."""
    progress = start.progress_at(elapsed)
    if curve:
        for step in progress.cpu:
            if step.process == "front_end":
                progress.cpu[step] = _used(curve, elapsed)
    return progress


def _used(curve: Curve, elapsed: float) -> float:
    """Return the CPU time at `elapsed` seconds, between two samples."""
    number = bisect_right(curve, (elapsed, math.inf))
    if number == len(curve):
        return curve[-1][1]
    (begin, low), (end, high) = curve[number - 1] if number else (0.0, 0.0), curve[number]
    return low + (high - low) * (elapsed - begin) / (end - begin)


def _sampled(journal: Path) -> Curve:
    """Return the CPU times that were sampled while a start ran; nothing if they were not."""
    path = journal.with_suffix(".cpu.json")
    return [tuple(each) for each in json.loads(path.read_text())["import"]] if path.exists() else ()


def _described(configuration: Configuration) -> str:
    compiled = "eager" if configuration.factors.get("args.enforce_eager") else "compiled"
    command = "run" if "forkserver" in configuration.factors else "up"
    return f"{command}, {compiled}, vLLM {configuration.factors.get('version.vllm')}"
