"""Reducing journals of real starts to what forecasts need: ``python -m tests.support.recorded_starts TO SAMPLES FROM…``.

Steps shorter than 1 % of the start, the model's path and the host's name are left out. SAMPLES is a file of the CPU times of all
processes while the starts ran, each line ``[time, [[pid, parent's pid, creation time, name, CPU seconds], …]]``: those of the
process that imports the engine are written beside each journal.
"""

from __future__ import annotations

import json
import math
import sys
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from phasebus.telemetry.analysis.forecast.past import CPU_SECONDS, CPU_SECONDS_BEFORE
from phasebus.telemetry.history import BUSYNESS, Configuration
from phasebus.telemetry.journal import RecordedStep, Run, read_journal
from tests.support.runs import write_journal

_SHORTEST_SHARE = 0.02
_FRONT_END = "front_end"
_KEPT = ("process", CPU_SECONDS, CPU_SECONDS_BEFORE)
_MODEL, _NODE = "tiny-llama", "node-0"


def reduced(run: Run) -> Run:
    """Return `run` with its longer steps, and with only the attributes that matter."""
    root = run.root
    assert root is not None
    begin, whole = root.start_ns, root.seconds(run.end_ns)
    steps = []
    for step in run.steps:
        if step is root or step.seconds(run.end_ns) >= _SHORTEST_SHARE * whole:
            attributes = {name: value for name, value in step.attributes.items() if name in _KEPT}
            if step is root:
                attributes |= _configuration(step)
            end = None if step.end_ns is None else step.end_ns - begin
            name = _NODE if step is root else step.name if step.kind != "download" else _MODEL
            made = replace(
                step, start_ns=step.start_ns - begin, end_ns=end, attributes=attributes, name=name, node=_NODE
            )
            steps.append(made)
    end_ns = run.end_ns - begin
    return replace(run, node=_NODE, start_ns=0, end_ns=end_ns, steps=tuple(steps), moments=(), state="closed")


def _configuration(root: RecordedStep) -> dict[str, object]:
    configuration = Configuration.from_attributes(root.attributes)
    assert configuration is not None
    factors = {**configuration.factors, "model": _MODEL}
    factors = {name: value for name, value in factors.items() if "/" not in str(value)}
    return {"model": _MODEL, BUSYNESS: root.attributes.get(BUSYNESS, 1.0), **Configuration.of(factors).attributes}


Samples = Sequence[tuple[float, Mapping[int, float]]]
"""Seconds since the epoch, and the CPU seconds that each process has used, by its id."""


def read_samples(path: Path) -> Samples:
    """Return the CPU times in the file `path`."""
    lines = (json.loads(line) for line in path.read_text().splitlines())
    return [(at, {pid: used for pid, *_, used in found}) for at, found in lines]


def curve(run: Run, samples: Samples) -> list[tuple[float, float]]:
    """Return the CPU time that the process importing the engine has used since it began to import.

    Each pair has the seconds after the begin of the start, and the CPU seconds. `run` gets the attribute
    `CPU_SECONDS_BEFORE` of that step if its journal lacks it.
    """
    root, importing = run.root, _importing(run)
    assert root is not None
    pid = importing.attributes["pid"]
    used = [
        (at, processes[pid]) for at, processes in samples if at <= (importing.end_ns or 0) / 1e9 and pid in processes
    ]
    if CPU_SECONDS_BEFORE not in importing.attributes:
        importing.attributes = {
            **importing.attributes,
            CPU_SECONDS_BEFORE: _interpolated(importing.start_ns / 1e9, used),
        }
    first = importing.attributes[CPU_SECONDS_BEFORE]
    return [
        (round(at - root.start_ns / 1e9, 1), round(cpu - first, 2))
        for at, cpu in used
        if at >= importing.start_ns / 1e9
    ]


def _interpolated(at: float, used: Sequence[tuple[float, float]]) -> float:
    number = bisect_right(used, (at, math.inf))
    if number in (0, len(used)):
        return 0.0
    (before, low), (after, high) = used[number - 1 : number + 1]
    return round(low + (high - low) * (at - before) / (after - before), 2)


def _importing(run: Run) -> RecordedStep:
    """Return the longest step of the front end whose CPU time was recorded."""
    found = (
        each for each in run.steps if each.attributes.get("process") == _FRONT_END and CPU_SECONDS in each.attributes
    )
    return max(found, key=lambda each: each.seconds(run.end_ns))


def main(target: Path, samples: Path, sources: Sequence[Path]) -> None:
    """Reduce each journal in `sources` that became ready, and write it into `target`."""
    sampled = read_samples(samples)
    for number, path in enumerate(sorted(path for source in sources for path in source.glob("*.jsonl"))):
        run = read_journal(path, until_ready=True)
        if run.root is not None and run.root.outcome == "finished":
            name = f"{run.run[:15]}-{number:04x}"
            used = {"import": curve(run, sampled)}
            write_journal(target / f"{name}.jsonl", replace(reduced(run), run=name))
            (target / f"{name}.cpu.json").write_text(json.dumps(used) + "\n")
            print(json.dumps({"run": name, "seconds": round(run.root.seconds(run.end_ns), 1)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), [Path(each) for each in sys.argv[3:]])
