"""What a trace must be, checked on the OTLP that a start has exported.

Jaeger warns of spans whose ids or parents are wrong, and moves spans that its clock skew adjustment finds misplaced.
Source: Jaeger's `clockskew.go`, `spaniduniquifier.go` and `hash.go`, as of August 2026.
"""

from __future__ import annotations

import dataclasses
from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from phasebus.telemetry.analysis.exclusive import UNATTRIBUTED, exclusive_seconds
from phasebus.telemetry.journal import RecordedStep
from phasebus.telemetry.relay.spans import attributes_of

REQUIRED = ("service.name", "service.instance.id", "host.name", "process.pid")
"""The attributes of every resource."""

_IDS = ("traceId", "spanId", "parentSpanId")

ROUNDING_NS = 20_000_000
"""How far two readings of one moment may differ, in nanoseconds: the system counts the age of a process in ticks of 10 ms."""


UNNAMED = 0.05
"""The largest share of a start without a named step. It is below 1 % on a machine with free CPUs; on a busy one, a process waits
for a CPU between two of its steps, too."""

IDLE_OF_WORKERS = 0.3
"""The largest share of its life in which a worker has no span: between two steps it waits for the slowest rank."""


@dataclass(frozen=True, slots=True)
class ExportedSpan:
    """A span as it was exported, with the attributes of its resource."""

    span: Span
    resource: Mapping[str, object]

    @property
    def id(self) -> str:
        """Its id, 16 hexadecimal digits."""
        return self.span.span_id.hex()

    @property
    def parent(self) -> str:
        """The id of its parent; "" if it has none."""
        return self.span.parent_span_id.hex()

    @property
    def attributes(self) -> Mapping[str, object]:
        """Its own attributes."""
        return attributes_of(self.span.attributes)

    def __str__(self) -> str:
        return f"{self.span.name!r} ({self.id} of {self.resource.get('process.pid')})"


def exported_spans(requests: Iterable[ExportTraceServiceRequest], trace: str = "") -> list[ExportedSpan]:
    """Return the spans in `requests`; with `trace`, 32 hexadecimal digits, only those of that trace."""
    return [
        ExportedSpan(span, attributes_of(of_resource.resource.attributes))
        for request in requests
        for of_resource in request.resource_spans
        for of_scope in of_resource.scope_spans
        for span in of_scope.spans
        if not trace or span.trace_id.hex() == trace
    ]


def exported_json(data: Mapping[str, Any], trace: str = "") -> list[ExportedSpan]:
    """Return the spans in `data`, OTLP as JSON: its ids are hexadecimal, where protobuf's JSON has base64."""
    request = ParseDict(_with_base64_ids(data), ExportTraceServiceRequest(), ignore_unknown_fields=True)
    return exported_spans([request], trace)


def _with_base64_ids(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_base64_ids(each) for each in value]
    if not isinstance(value, Mapping):
        return value
    return {
        key: b64encode(bytes.fromhex(each)).decode() if key in _IDS else _with_base64_ids(each)
        for key, each in value.items()
    }


def assert_is_one_trace(
    spans: Iterable[ExportedSpan], *, caller: str = "", began_ns: int = 0, ended_ns: int = 2**63
) -> None:
    """Assert that `spans` are one trace without faults, of a start that has ended.

    Args:
        spans: All spans of the trace.
        caller: The id of the span in another program that is the root's parent; "" if there is none.
        began_ns: When the run began, in nanoseconds since the epoch.
        ended_ns: When it ended, likewise.
    """
    found = list(spans)
    assert found, "no span has arrived"
    problems = list(faults(found, caller=caller, began_ns=began_ns, ended_ns=ended_ns))
    assert not problems, "\n".join(map(str, problems))


def faults(spans: list[ExportedSpan], *, caller: str = "", began_ns: int = 0, ended_ns: int = 2**63) -> Iterator[str]:
    """Yield what is wrong with `spans`; see `assert_is_one_trace`."""
    spans = _without_repetitions(spans)
    by_id = {each.id: each for each in spans}
    yield from (f"{count} spans have the id {id_}" for id_, count in _counted(each.id for each in spans))
    traces = {each.span.trace_id for each in spans}
    if len(traces) != 1:
        yield f"they belong to {len(traces)} traces"
    roots = [each for each in spans if each.parent == caller]
    if len(roots) != 1:
        yield f"it has {len(roots)} roots: {', '.join(map(str, roots))}"
    for each in spans:
        parent = by_id.get(each.parent)
        if parent is None and each.parent != caller:
            yield f"{each} has a parent that is not in the trace: {each.parent}"
        elif parent is not None:
            yield from _misplaced(each, parent)
        yield from _own_faults(each)
        if not began_ns - ROUNDING_NS <= each.span.start_time_unix_nano <= each.span.end_time_unix_nano <= ended_ns:
            yield f"{each} lies outside the run"
    yield from _resource_faults(spans)


@dataclass(frozen=True, slots=True)
class ProcessTime:
    """How one process spent its part of a start.

    Attributes:
        life_seconds: The time from the start of its first span to the end of its last one, in seconds.
        exclusive_seconds: The time of each name while no span inside it ran, in seconds.
    """

    life_seconds: float
    exclusive_seconds: Mapping[str, float]

    @property
    def unattributed_share(self) -> float:
        """The share of its life in which it had no span, 0 to 1."""
        return self.exclusive_seconds[UNATTRIBUTED] / self.life_seconds if self.life_seconds else 0.0


def process_times(spans: Iterable[ExportedSpan]) -> Mapping[str, ProcessTime]:
    """Return how each process of a trace spent its time, by its host, id and name."""
    by_process: dict[str, list[RecordedStep]] = {}
    for each in spans:
        name = " ".join(str(each.resource.get(key, "")) for key in ("host.name", "process.pid", "phasebus.process"))
        by_process.setdefault(name, []).append(_recorded(each))
    return {name: _process_time(steps) for name, steps in by_process.items()}


def _process_time(steps: list[RecordedStep]) -> ProcessTime:
    whole = dataclasses.replace(min(steps, key=lambda step: step.start_ns), id="life", parent=None)
    whole.end_ns = max(step.end_ns or 0 for step in steps)
    return ProcessTime(whole.seconds(0), exclusive_seconds(whole, steps))


def _recorded(each: ExportedSpan) -> RecordedStep:
    return RecordedStep(
        id=each.id,
        parent=each.parent or None,
        node="",
        kind="engine_step",
        name=each.span.name,
        start_ns=each.span.start_time_unix_nano,
        end_ns=each.span.end_time_unix_nano,
        outcome="finished",
        error=None,
        attributes={"process": each.resource.get("phasebus.process", "")},
    )


def _without_repetitions(spans: list[ExportedSpan]) -> list[ExportedSpan]:
    """Return `spans` without those that the driver has exported for a lost node, where that node has exported them, too."""
    own = {each.id for each in spans if "phasebus.retold" not in each.attributes}
    return [each for each in spans if "phasebus.retold" not in each.attributes or each.id not in own]


def _misplaced(child: ExportedSpan, parent: ExportedSpan) -> Iterator[str]:
    early = parent.span.start_time_unix_nano - child.span.start_time_unix_nano
    late = child.span.end_time_unix_nano - parent.span.end_time_unix_nano
    if early > ROUNDING_NS:
        yield f"{child} begins {early / 1e9:.3f} s before its parent {parent}"
    if late > ROUNDING_NS and not child.span.links:
        yield f"{child} ends {late / 1e9:.3f} s after its parent {parent}, without a link"


def _own_faults(each: ExportedSpan) -> Iterator[str]:
    span = each.span
    if span.status.code == Status.STATUS_CODE_ERROR:
        if not span.status.message or "error.type" not in each.attributes:
            yield f"{each} failed, without a message or error.type"
    elif "error.type" in each.attributes:
        yield f"{each} has an error.type, and no status of an error"
    if not span.name:
        yield f"{each} has no name"
    for event in span.events:
        if not span.start_time_unix_nano <= event.time_unix_nano <= span.end_time_unix_nano:
            yield f"{each} has an event outside its time: {event.name}"


def _resource_faults(spans: list[ExportedSpan]) -> Iterator[str]:
    processes: dict[object, set[tuple[object, object]]] = {}
    for each in spans:
        missing = [name for name in REQUIRED if not each.resource.get(name)]
        if missing or str(each.resource.get("service.name")).startswith("unknown_service"):
            yield f"{each} has a resource without {', '.join(missing) or 'a service name'}"
        process = each.resource.get("host.name"), each.resource.get("process.pid")
        processes.setdefault(each.resource.get("service.instance.id"), set()).add(process)
    for instance, known in processes.items():
        if len(known) > 1:
            yield f"{len(known)} processes have the instance id {instance}: {sorted(map(str, known))}"


def _counted(ids: Iterable[str]) -> Iterator[tuple[str, int]]:
    return ((id_, count) for id_, count in Counter(ids).items() if count > 1)
