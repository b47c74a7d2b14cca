"""Whether a long life is flat: the memory of an application that serves through the middleware, with every observer."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

from tests.benchmarks.measuring import Number, Table
from tests.support.programs import ROOT

LIVES = ((1_000_000, 10.0), (240_000, 1e9))
"""Numbers of requests, and how many of them a second are steps at most: the default, and all of them."""


def tables() -> Iterator[Table]:
    """Measure, and return what there is to print."""
    table = Table(
        "memory of an application behind the middleware, with the observers of metrics, spans, timeline, status and journal",
        ["requests", "steps a second", "after a quarter", "after a half", "after all", "all to a half"],
        notes=["The timeline keeps 50,000 steps: if every request is one, it is full before the half."],
    )
    for requests, traced in LIVES:
        command = [sys.executable, "-m", "tests.support.soak", str(requests), str(traced)]
        printed = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
        memory = [int(line) / 1e6 for line in printed.split()]
        cells = [Number(each, " MB") for each in memory]
        limit = "all" if traced > requests else f"at most {traced:g}"
        table.rows.append([f"{requests:,}", limit, *cells, Number(memory[2] / memory[1], "x", 1.05)])
    yield table
