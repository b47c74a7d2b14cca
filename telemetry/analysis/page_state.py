"""A finished run as the state of the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from phasebus.telemetry.analysis.forecast.past import past_run
from phasebus.telemetry.analysis.forecast.progress import key_of
from phasebus.telemetry.analysis.forecast.usual import usual_durations
from phasebus.telemetry.analysis.nesting import end_of, walk
from phasebus.telemetry.journal import Run
from phasebus.telemetry.redaction import redact, redact_attributes, redact_name


def page_state(run: Run, earlier: Sequence[Run] = ()) -> dict[str, Any]:
    """Return `run` in the form of `Timeline.state`.

    Args:
        run: The run.
        earlier: Runs with the same configuration, which the usual durations come from.
    """
    steps: list[dict[str, Any]] = []
    usual = usual_durations([past for each in earlier if (past := past_run(each)) is not None])
    several = run.root is not None and run.root.kind == "cluster"
    for at in walk(run):
        step = at.step
        expected = usual.get(key_of(step.kind, step.name, at.node if several else "", step.attributes))
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
            "usual": None
            if expected is None
            else {name: getattr(expected, name) for name in ("seconds", "low", "high")},
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
