"""Reading spans out of an OTLP request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.proto.common.v1.common_pb2 import KeyValue

Value = str | int | float | bool


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
        """How long it took."""
        return (self.end_ns - self.start_ns) / 1e9


def read_spans(request: ExportTraceServiceRequest) -> Iterator[EngineSpan]:
    """Yield the spans of `request`, in the order they stand there."""
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
                    error=(span.status.message or "failed") if failed else None,
                )


def _plain(attributes: Iterable[KeyValue]) -> dict[str, Value]:
    plain: dict[str, Value] = {}
    for attribute in attributes:
        which = attribute.value.WhichOneof("value")
        if which in ("string_value", "bool_value", "int_value", "double_value"):
            plain[attribute.key] = getattr(attribute.value, which)
    return plain
