"""What the command line costs before it does anything: its help, against an interpreter that does nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter

from tests.benchmarks.measuring import Number, Table

ROUNDS = 25
MARK_SECONDS = 0.3
COMMANDS: dict[str, Sequence[str]] = {
    "phasebus --help": ("--help",),
    "phasebus --version": ("--version",),
    "phasebus report --help": ("report", "--help"),
}


def _seconds(command: Sequence[str]) -> float:
    began = perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return perf_counter() - began


def tables() -> Iterator[Table]:
    script = str(Path(sys.executable).with_name("phasebus"))
    bare: list[float] = []
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):  # in turns, so that a busy machine slows all of them
        bare.append(_seconds([sys.executable, "-c", "pass"]))
        for name, arguments in COMMANDS.items():
            taken[name].append(_seconds([script, *arguments]))
    table = Table(
        f"The command line: median of {ROUNDS} rounds in turns",
        ["", "seconds", "over `python -c pass`"],
        notes=[f"`python -c pass` took {median(bare):.3f} s."],
    )
    for name, times in taken.items():
        mark = MARK_SECONDS if name == "phasebus --help" else None
        table.rows.append([name, Number(median(times), " s", mark), Number(median(times) / median(bare))])
    yield table
