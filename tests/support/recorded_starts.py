"""Reducing journals of real starts to what forecasts need: ``python -m tests.support.recorded_starts FROM TO``.

Steps shorter than 1 % of the start, the model's path and the host's name are left out.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

from phasebus.telemetry.history import BUSYNESS, Configuration
from phasebus.telemetry.journal import RecordedStep, Run, read_journal
from tests.support.runs import write_journal

_SHORTEST_SHARE = 0.01
_KEPT = ("process",)
_MODEL, _NODE = "tiny-llama", "node-0"
_EARLIER = Configuration.of(
    {"engine": "vllm", "args.enforce_eager": True, "version.phasebus": "before the fork server"}
)
"""Of starts that were recorded before journals had configurations."""


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
    configuration = Configuration.from_attributes(root.attributes) or _EARLIER
    factors = {**configuration.factors, "model": _MODEL}
    factors = {name: value for name, value in factors.items() if "/" not in str(value)}
    return {"model": _MODEL, BUSYNESS: root.attributes.get(BUSYNESS, 1.0), **Configuration.of(factors).attributes}


def main(source: Path, target: Path) -> None:
    """Reduce each journal in `source` that became ready, and write it into `target`."""
    for number, path in enumerate(sorted(source.glob("*.jsonl"))):
        run = read_journal(path, until_ready=True)
        if run.root is not None and run.root.outcome == "finished":
            name = f"{run.run[:15]}-{number:04x}"
            write_journal(target / f"{name}.jsonl", replace(reduced(run), run=name))
            print(json.dumps({"run": name, "seconds": round(run.root.seconds(run.end_ns), 1)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
