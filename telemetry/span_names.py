"""The names of spans and their attributes, by the steps they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from phasebus.telemetry.names import kind_names

SPAN_NAME: Final = "span_name"
"""The attribute of a step whose span has a name of its own: an engine's step that phasebus has no name for."""


_PENDING: Final = 0x5555_5555_5555_5555

INNER_STEPS: Final = "inner_steps"
"""The attribute of a step that has the longest parts of its work inside it, with the value `LONGEST`: the rest is its own."""

LONGEST: Final = "longest"

LINKED_TO: Final = "linked_to"
"""The attribute of a step with the traceparent of a related span, which its span links to."""


def span_name(kind: str, name: str) -> str:
    """Return the name of the span of a step. Span names have few values; what varies is an attribute."""
    return kind_names(kind).span.format(kind=kind, name=name, words=name.replace("_", " "))


def span_attribute(key: str) -> str:
    """Return the name of a step's attribute on its span."""
    return key if "." in key else f"phasebus.{key}"


def pending_id(step: str) -> str:
    """Return the id of the span that reports a step as running: its own span has the id of the step."""
    return f"{int(step, 16) ^ _PENDING:016x}"


def process_attributes(attributes: Mapping[str, object]) -> Mapping[str, str | int] | None:
    """Return the resource attributes of the process that ran a step; None if the step does not name one.

    Args:
        attributes: Those of the step: ``process`` (a name) and ``pid``, and ``host`` if it is another machine.
    """
    pid, process, host = attributes.get("pid"), attributes.get("process"), attributes.get("host")
    if type(pid) is not int or process is None:
        return None
    known: dict[str, str | int] = {"process.pid": pid, "phasebus.process": str(process)}
    return known if host is None else {**known, "host.name": str(host)}
