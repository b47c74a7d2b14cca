"""Reading the spans of an OTLP request, and rejecting invalid ones."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from phasebus.telemetry.relay.notices import MOST_NANOSECONDS

if TYPE_CHECKING:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.proto.common.v1.common_pb2 import KeyValue
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

Value = str | int | float | bool

MOST_ATTRIBUTES: Final = 1000
"""Maximum number of attributes, events or links of a span; OpenTelemetry's own limit is 128."""

MOST_SPANS: Final = 20_000
"""Maximum number of spans of a request; OpenTelemetry's exporters send 512."""

_MOST_CHARACTERS: Final = 16_384
_PLAIN: Final = frozenset({"string_value", "bool_value", "int_value", "double_value"})


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpan:
    """A span that another process has ended and exported.

    Attributes:
        name: Its name, as that process calls it.
        trace: Its trace id, 32 hexadecimal digits.
        span: Its id, 16 hexadecimal digits.
        parent: The id of its parent; None at the root of its trace.
        start_ns: When it began, in nanoseconds since the epoch.
        end_ns: When it ended, likewise.
        attributes: Its attributes that are plain values.
        resource: Those of the process.
        error: What its status says of a failure; None if it did not fail.
    """

    name: str
    trace: str
    span: str
    parent: str | None
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Value]
    resource: Mapping[str, Value]
    error: str | None = None

    @property
    def seconds(self) -> float:
        """Its duration, in seconds."""
        return (self.end_ns - self.start_ns) / 1e9


def reject_spans(request: ExportTraceServiceRequest) -> Sequence[str]:
    """Remove from `request` the spans that are invalid or exceed a limit; return the reason for each."""
    faults: list[str] = []
    room = MOST_SPANS
    for of_resource in request.resource_spans:
        if len(of_resource.resource.attributes) > MOST_ATTRIBUTES:
            faults += ["its process has too many attributes"] * sum(len(each.spans) for each in of_resource.scope_spans)
            del of_resource.scope_spans[:]
        for of_scope in of_resource.scope_spans:
            for index in range(len(of_scope.spans) - 1, -1, -1):
                fault = _fault(of_scope.spans[index]) if room > 0 else "there are too many spans in one request"
                if fault is None:
                    room -= 1
                else:
                    faults.append(fault)
                    del of_scope.spans[index]
    return faults


def remove_spans(request: ExportTraceServiceRequest, spans: Collection[tuple[str, str]]) -> None:
    """Remove from `request` the spans with these ids, each a trace id and a span id in hexadecimal digits."""
    if not spans:
        return
    for of_resource in request.resource_spans:
        for of_scope in of_resource.scope_spans:
            for index in range(len(of_scope.spans) - 1, -1, -1):
                span = of_scope.spans[index]
                if (span.trace_id.hex(), span.span_id.hex()) in spans:
                    del of_scope.spans[index]


def _fault(span: Span) -> str | None:
    """Return the error of `span`; None if it is valid.

    Source: opentelemetry-proto, ``trace.proto`` (lengths of ids, all-zero ids, required fields).
    """
    if not valid_ids(span.trace_id, span.span_id):
        return "its ids are not valid"
    if len(span.parent_span_id) not in (0, 8) or span.parent_span_id == span.span_id:
        return "the id of its parent is not valid"
    if not 0 <= span.start_time_unix_nano <= span.end_time_unix_nano < MOST_NANOSECONDS:
        return "its times are not valid"
    if len(span.name) > _MOST_CHARACTERS:
        return "its name is too long"
    if max(len(span.attributes), len(span.events), len(span.links)) > MOST_ATTRIBUTES:
        return "it has too many attributes, events or links"
    return None


def valid_ids(trace_id: bytes, span_id: bytes) -> bool:
    """Return whether these are ids of a trace and of a span."""
    return len(trace_id) == 16 and any(trace_id) and len(span_id) == 8 and any(span_id)


def read_spans(request: ExportTraceServiceRequest) -> Iterator[EngineSpan]:
    """Yield the spans of `request`, in their order there."""
    from opentelemetry.proto.trace.v1.trace_pb2 import Status

    for of_resource in request.resource_spans:
        resource = _plain(of_resource.resource.attributes)
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                failed = span.status.code == Status.STATUS_CODE_ERROR
                yield EngineSpan(
                    name=span.name,
                    trace=span.trace_id.hex(),
                    span=span.span_id.hex(),
                    parent=span.parent_span_id.hex() or None,
                    start_ns=span.start_time_unix_nano,
                    end_ns=span.end_time_unix_nano,
                    attributes=_plain(span.attributes),
                    resource=resource,
                    error=(span.status.message[:_MOST_CHARACTERS] or "failed") if failed else None,
                )


def attributes_of(attributes: Iterable[KeyValue]) -> dict[str, Value | Sequence[Value]]:
    """Return attributes that the SDK accepts: plain values and lists of them; others are left out."""
    found: dict[str, Value | Sequence[Value]] = {}
    for attribute in attributes:
        if not attribute.key:
            continue
        which = attribute.value.WhichOneof("value")
        if which in _PLAIN:
            found[attribute.key] = getattr(attribute.value, which)
        elif which == "array_value":
            values = attribute.value.array_value.values
            kinds = {value.WhichOneof("value") for value in values}
            if len(kinds) == 1 and kinds <= _PLAIN:
                (kind,) = kinds
                found[attribute.key] = tuple(getattr(value, str(kind)) for value in values)
    return found


def _plain(attributes: Iterable[KeyValue]) -> dict[str, Value]:
    """Return the attributes with values that JSON can represent; texts have a maximum length."""
    return {
        key: str(value)[:_MOST_CHARACTERS] if isinstance(value, str) or not math.isfinite(value) else value
        for key, value in attributes_of(attributes).items()
        if isinstance(value, str | int | float | bool)
    }
