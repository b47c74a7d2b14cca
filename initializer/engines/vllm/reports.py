"""One report of a step, whether it arrived as a notice of our plugin or as a span of vLLM's exporter."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from phasebus.initializer.engines.vllm.inside.ranks import FRONT_END, HOST, PID_ATTRIBUTE, PROCESS_ATTRIBUTE
from phasebus.initializer.engines.vllm.names import OTHER, OWN_STEPS, step_name
from phasebus.telemetry import EngineSpan, StepNotice

_HIDDEN = ("code.", "phasebus.")
"""What the names of attributes begin with that are of no use in an event: where the code is, and what has its own field."""

_MAX_PROCESS_ID = 2**31


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessKey:
    """A process of the engine.

    Attributes:
        host: The name of its machine; None for this one.
        pid: Its id there; 0 if that is not known.
    """

    host: str | None = None
    pid: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """What a process reports of one of its steps.

    Attributes:
        step: The id in the report: that of the span, or one that parent and child derive alike.
        parent: The id of the step it belongs to.
        name: Our name of the step.
        process: The name of the process.
        key: The process.
        began_ns: When the step began, in nanoseconds since the epoch.
        ended_ns: When it ended; None while it runs.
        attributes: Its attributes.
        traced: Whether the process exports its span.
        error: Its failure; None if it did not fail.
    """

    step: str
    parent: str | None
    name: str
    process: str
    key: ProcessKey
    began_ns: int
    ended_ns: int | None
    attributes: Mapping[str, Any]
    traced: bool
    error: str | None


def report_of_notice(notice: StepNotice) -> StepReport:
    """Return what a notice of a step that has started or ended reports."""
    key = ProcessKey(host=_other_host(notice.attributes), pid=notice.pid)
    ended = notice.event == "ended"
    return StepReport(
        step=notice.step,
        parent=notice.parent,
        name=step_name(notice.name, notice.attributes.get("code.function")),
        process=notice.process,
        key=key,
        began_ns=notice.began_ns if ended and notice.began_ns is not None else notice.time_ns,
        ended_ns=notice.time_ns if ended else None,
        attributes=_attributes(notice.name, notice.process, notice.pid, key, notice.attributes),
        traced=notice.traced,
        error=notice.error,
    )


def report_of_span(span: EngineSpan) -> StepReport:
    """Return what a span reports: a step that has begun and ended."""
    known = span.resource
    process = str(
        span.attributes.get(PROCESS_ATTRIBUTE)
        or known.get("vllm.process_name")
        or known.get("vllm.process_kind")
        or FRONT_END
    )
    pid = _process_id(span.attributes.get(PID_ATTRIBUTE)) or _process_id(known.get("vllm.process_id"))
    key = ProcessKey(host=_other_host(span.attributes), pid=pid)
    return StepReport(
        step=span.span,
        parent=span.parent,
        name=step_name(span.name, span.attributes.get("code.function")),
        process=process,
        key=key,
        began_ns=span.start_ns,
        ended_ns=span.end_ns,
        attributes=_attributes(span.name, process, pid, key, span.attributes),
        traced=True,
        error=span.error,
    )


def process_key(notice: StepNotice) -> ProcessKey:
    """Return the process that a notice is about."""
    return ProcessKey(host=_other_host(notice.attributes), pid=notice.pid)


def _attributes(span: str, process: str, pid: int, key: ProcessKey, others: Mapping[str, Any]) -> dict[str, Any]:
    plain = {name: value for name, value in others.items() if name != HOST and not name.startswith(_HIDDEN)}
    where = {} if key.host is None else {HOST: key.host}
    # a span without a step of its own name keeps its name
    is_unknown = step_name(span, others.get("code.function")) == OTHER
    names = {} if span in OWN_STEPS else {"span_name" if is_unknown else "vllm.span": span}
    return {**names, "process": process, **({"pid": pid} if pid else {}), **where, **plain}


def _process_id(value: object) -> int:
    """Return `value` if it can be the id of a process, else 0."""
    number = int(value) if isinstance(value, int | str) and str(value).isdecimal() else 0
    return number if number < _MAX_PROCESS_ID else 0


def _other_host(attributes: Mapping[str, Any]) -> str | None:
    host = attributes.get(HOST)
    return None if host is None or host == platform.node() else str(host)
