"""Runs made up for tests, of steps whose times are given in seconds."""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path
from typing import Any

from phasebus.telemetry.journal import RecordedStep, Run

SECOND = 10**9


def step(
    name: str,
    start: float,
    end: float | None,
    parent: str | None = None,
    *,
    id: str | None = None,  # noqa: A002  # what it is called
    kind: str = "phase",
    node: str = "n",
    outcome: str = "finished",
    error: str | None = None,
    **attributes: Any,
) -> RecordedStep:
    """Return a step that is its name's namesake unless an id is given."""
    return RecordedStep(
        id=id or name,
        parent=parent,
        node=node,
        kind=kind,
        name=name,
        start_ns=int(start * SECOND),
        end_ns=None if end is None else int(end * SECOND),
        outcome=outcome if end is not None else "running",
        error=error,
        attributes=attributes,
    )


def run_of(*steps: RecordedStep, end: float = 100.0, run: str = "r", state: str = "closed") -> Run:
    """Return a run of these steps, whose journal ends at `end` seconds."""
    return Run(
        path=Path("x"),
        run=run,
        node="n",
        trace="t" * 32,
        phasebus="0",
        start_ns=0,
        end_ns=int(end * SECOND),
        state=state,
        steps=tuple(sorted(steps, key=lambda each: each.start_ns)),
        moments=(),
    )


def cluster(nodes: int, slowest: int = 0) -> Run:
    """Return the run of a cluster whose nodes download for 2 s and start an engine for 3 s; one takes 4 s longer."""
    steps = [step("cluster", 0, 10, kind="cluster")]
    for number in range(nodes):
        name = f"node-{number}"
        late = 4 if number == slowest else 0
        steps += [
            step(name, 0.5, 5.5 + late, "cluster", kind="node", node=name),
            step("download", 0.5, 2.5, name, id=f"{name}-d", node=name),
            step("engine_init", 2.5, 5.5 + late, name, id=f"{name}-e", node=name),
        ]
    return run_of(*steps, end=10.0)


def write_journal(path: Path, run: Run) -> Path:
    """Write `run` as its journals: one file for each of its nodes, as they would have written it while it happened."""
    members = sorted({each.node for each in run.steps} - {run.node})
    for member in members:
        _write_lines(path.with_suffix("") / f"{member}.jsonl", run, member)
    return _write_lines(path, run, run.node)


def _write_lines(path: Path, run: Run, node: str) -> Path:
    common = {"run": run.run, "node": node, "trace": "f" * 32, "monotonic_ns": 0}
    lines: list[dict[str, Any]] = []
    for each in run.steps:
        if each.node != node:
            continue
        about = {
            **common,
            "span": _id(each.id),
            "parent": None if each.parent is None else _id(each.parent),
            "kind": each.kind,
            "name": each.name,
            "attributes": dict(each.attributes),
        }
        lines.append({"event": "StepStarted", "time_ns": each.start_ns, **about})
        if each.end_ns is not None:
            seconds = (each.end_ns - each.start_ns) / SECOND
            ended = {
                "event": "StepFinished",
                "time_ns": each.end_ns,
                "outcome": each.outcome,
                "seconds": seconds,
                **about,
            }
            lines.append(ended | ({"error": {"type": "X", "message": each.error}} if each.error else {}))
    lines.sort(key=lambda line: line["time_ns"])
    header = {"event": "JournalOpened", "format": 1, "phasebus": run.phasebus, "pid": 0, "process_created": 0.0}
    lines.insert(0, {**common, "time_ns": run.start_ns, **header})
    if run.state == "closed":
        lines.append({**common, "event": "JournalClosed", "time_ns": run.end_ns})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def _id(name: str) -> str:
    return blake2b(name.encode(), digest_size=8).hexdigest()
