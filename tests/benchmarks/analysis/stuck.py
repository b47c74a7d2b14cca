"""How well the step that a start hangs in is named, and how often a healthy start raises an alarm."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from statistics import median

from phasebus.observers.stuck.activity import ProcessSampler
from phasebus.observers.stuck.suspects import DEFAULT_PATIENCE
from tests.benchmarks.measuring import Number, Table
from tests.support.hangs import HANGS, run
from tests.support.healthy_starts import false_alarms

AT_ONCE = 2
HEALTHY_STARTS = 1000
MOST_SECONDS = 15.0
SAMPLES = 50


def tables() -> Iterator[Table]:
    """Yield the injected hangs, and the false alarms."""
    yield _hangs()
    yield _alarms()


def _hangs() -> Table:
    table = Table("Injected hangs: what is named first, and after how long", ["hang", "seconds", "step", "process"])
    names, right = list(HANGS), 0
    for at in range(0, len(names), AT_ONCE):
        for name, first in run(names[at : at + AT_ONCE], DEFAULT_PATIENCE.seconds).items():
            expected = HANGS[name][1]
            named = bool(first) and first["name"].startswith(expected.name) and first["process"] == expected.process
            in_time = named and first["seconds"] <= MOST_SECONDS
            right += in_time
            seconds = Number(first["seconds"], "s") if first else "none"
            table.rows.append(
                [name, seconds, first.get("name", "none"), f"{first.get('process')}{'' if named else ' ✗'}"]
            )
    wrong = len(names) - right
    table.rows.append(["wrong, late or missing", Number(wrong, "", 1, f"of {len(names)}"), None, None])
    table.notes.append("real processes; the collecting of the evidence is part of the time")
    return table


def _alarms() -> Table:
    table = Table("Healthy starts", ["measure", "value"])
    alarms = false_alarms(range(HEALTHY_STARTS))
    table.rows.append(["false alarms", Number(len(alarms), "", 0, f"of {HEALTHY_STARTS} simulated starts")])
    sampler, seconds = ProcessSampler(), []
    for _ in range(SAMPLES):
        began = time.thread_time()
        sampler.sample([os.getpid()])
        seconds.append(time.thread_time() - began)
    table.rows.append(
        [
            "CPU time of a sample",
            Number(1000 * median(seconds), "ms"),
        ]
    )
    table.notes.append("one sample a second, in a thread of low priority, and only while no event arrives")
    return table
