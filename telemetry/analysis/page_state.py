"""A finished run as the state of the page."""

from __future__ import annotations

from typing import Any

from phasebus.telemetry.analysis.nesting import end_of, walk
from phasebus.telemetry.journal import Run
from phasebus.telemetry.redaction import redact, redact_attributes, redact_name


def page_state(run: Run) -> dict[str, Any]:
    """Return `run` in the form of `Timeline.state`."""
    steps: list[dict[str, Any]] = []
    for at in walk(run):
        step = at.step
        fields = {
            "id": step.id,
            "parent": step.parent,
            "node": at.node,
            "kind": step.kind,
            "name": redact_name(step.name),
            "start": at.start_ns / 1e9,
            "end": None if step.end_ns is None else end_of(step, run) / 1e9,
            "outcome": step.outcome,
            "error": None if step.error is None else redact(step.error),
            "attributes": redact_attributes(step.attributes),
        }
        steps.append({key: value for key, value in fields.items() if value is not None})
    last = run.stuck[-1].plain() if run.stuck else []
    unfinished = {step.id for step in run.steps if step.outcome != "finished"}
    stuck = [step for step in last if step["step"] in unfinished]
    about = {"run": run.run, "node": run.node, "trace": run.trace, "phasebus": run.phasebus, "trace_url": None}
    return about | {
        "now": run.end_ns / 1e9,
        "version": 0,
        "left_out": 0,
        "closed": True,
        "steps": steps,
        "stuck": stuck,
    }
