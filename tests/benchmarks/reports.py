"""How long the reports of the worst journals take: many steps at once, deep ones, late ones, and several outermost ones."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from phasebus.telemetry.journal import RecordedStep, Run
from tests.benchmarks.measuring import Number, Table
from tests.support.runs import run_of, step, write_journal

STEPS = 30_000
DEPTH = 3_000
SECONDS = 3
REPORTS = ("blame", "critical-path", "gaps", "stragglers", "plot", "diff", "perfetto")


def all_at_once() -> Run:
    """Return a run whose steps all run at the same time, each inside the one before."""
    inner = [step(f"s{at}", at / 1000, 80 - at / 1000, "root", kind="engine_step") for at in range(STEPS)]
    return run_of(step("root", 0, 90), *inner)


def at_any_time() -> Run:
    """Return a run whose steps overlap in every way."""
    inner = [
        step(f"s{at}", at * 7919 % STEPS / 1000, 31 + at * 104729 % STEPS / 1000, "root", kind="engine_step")
        for at in range(STEPS)
    ]
    return run_of(step("root", 0, 90), *inner)


def deep() -> Run:
    """Return a run with chains of DEPTH steps, each inside the one before."""
    return run_of(*(each for chain in range(STEPS // DEPTH) for each in _chain(f"c{chain}-", 0, "phase")))


def late() -> Run:
    """Return a run whose steps begin after DEPTH steps around them have ended."""
    inner = [step(f"s{at}", 50 + at / 1000, 51 + at / 1000, f"c{DEPTH - 1}") for at in range(STEPS - DEPTH)]
    return run_of(*_chain("c", 0, "phase"), *inner)


def beside() -> Run:
    """Return a run whose steps run beside a chain of DEPTH steps that all contain them."""
    inner = [step(f"s{at}", 4 + at / 1000, 5 + at / 1000, "other", kind="engine_step") for at in range(STEPS - DEPTH)]
    return run_of(*_chain("c", 0, "engine_step"), step("other", 0, 90), *inner)


def two_roots() -> Run:
    """Return a run with two outermost steps, one after the other, and many short steps in each."""
    roots = [step(f"root{at}", 45 * at, 45 * (at + 1), kind="node") for at in range(2)]
    inner = [step(f"s{at}", at / 350, (at + 1) / 350, f"root{at // (STEPS // 2)}") for at in range(STEPS)]
    return run_of(*roots, *inner)


def _chain(prefix: str, start: float, kind: str) -> list[RecordedStep]:
    return [
        step(f"{prefix}{at}", start + at / 1000, start + 40 - at / 1000, f"{prefix}{at - 1}" if at else None, kind=kind)
        for at in range(DEPTH)
    ]


RUNS: tuple[Callable[[], Run], ...] = (all_at_once, at_any_time, deep, late, beside, two_roots)


def tables() -> Iterator[Table]:
    table = Table(
        f"Reports of journals with {STEPS:,} steps: seconds of CPU of the whole command",
        ["", *REPORTS],
        notes=[
            f"The command imports, and reads the journal; diff reads two, and so {2 * STEPS:,} steps.",
            f"Deep: chains of {DEPTH:,} steps. Late: steps that began after the {DEPTH:,} around them had ended.",
            f"Beside: steps of an engine beside {DEPTH:,} others that contain them and are not around them.",
        ],
    )
    with TemporaryDirectory() as folder:
        for run in RUNS:
            journal = write_journal(Path(folder) / f"{run.__name__}.jsonl", run())
            cells = [Number(_cpu_seconds(report, journal), " s", SECONDS) for report in REPORTS]
            table.rows.append([run.__name__.replace("_", " "), *cells])
    yield table


def _cpu_seconds(report: str, journal: Path) -> float:
    which = ["diff", str(journal), str(journal)] if report == "diff" else [str(journal), report]
    output = ["--output", str(journal.with_suffix(".out"))] if report in ("plot", "perfetto") else []
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [str(Path(sys.executable).with_name("phasebus")), "report", *which, *output]
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
