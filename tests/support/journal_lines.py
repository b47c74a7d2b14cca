"""Lines of a journal, as a node writes them."""

from __future__ import annotations

import json
from typing import Any


def line(event: str, **fields: Any) -> bytes:
    common = {"event": event, "run": "r", "node": "n", "trace": "f" * 32, "time_ns": 1, "monotonic_ns": 1}
    return json.dumps({**common, **fields}).encode() + b"\n"


def begun(span: str, kind: str, name: str, **attributes: Any) -> bytes:
    return line("StepStarted", span=span, parent=None, kind=kind, name=name, attributes=attributes)


def progressed(span: str, kind: str, name: str, done: float, total: float | None = None, **fields: Any) -> bytes:
    attributes = fields.pop("attributes", {})
    about = {"span": span, "parent": None, "kind": kind, "name": name, "attributes": attributes, "unit": "By"}
    return line("StepProgress", **{**about, "done": done, "total": total, **fields})


def ended(span: str, kind: str, name: str, outcome: str = "finished", **attributes: Any) -> bytes:
    event = "StepFinished" if outcome == "finished" else "StepFailed"
    fields = {} if outcome == "finished" else {"error": {"type": "E", "message": "because"}}
    about = {"span": span, "parent": None, "kind": kind, "name": name, "attributes": attributes}
    return line(event, **about, seconds=2.0, outcome=outcome, **fields)
