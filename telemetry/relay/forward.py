"""Forwarding spans that other processes have exported, through the exporters of this process."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from phasebus.telemetry.otel import process_resource
from phasebus.telemetry.relay.spans import attributes_of, valid_ids
from phasebus.telemetry.tracing import Tracing

if TYPE_CHECKING:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.proto.trace.v1 import trace_pb2
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext

_MEMBER = r"[a-z0-9][a-z0-9_*/@-]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
_TRACE_STATE = re.compile(rf"{_MEMBER}(?:,{_MEMBER}){{0,31}}")
"""A tracestate that the SDK accepts without a warning. Source: W3C Trace Context, "tracestate Header"."""


class SpanForwarder:
    """Forwards requests of spans with the service, the sampling and the exporters of `tracing`.

    Args:
        tracing: What exports spans of this process.
    """

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    def send(self, request: ExportTraceServiceRequest, *, local: bool) -> None:
        """Export the spans of `request`; never waits.

        Args:
            request: Spans that have been checked.
            local: Whether the process that made them runs on this machine.
        """
        self._tracing.forward(readable_spans(request, self._tracing.resource, local=local))


def readable_spans(request: ExportTraceServiceRequest, own: Resource, *, local: bool) -> Iterator[ReadableSpan]:
    """Yield the spans of `request` as the SDK has them, each with a completed resource.

    Args:
        request: Spans that have been checked.
        own: The resource of this process.
        local: Whether the process that made them runs on this machine.
    """
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    for of_resource in request.resource_spans:
        resource = process_resource(attributes_of(of_resource.resource.attributes), own, local=local)
        for of_scope in of_resource.scope_spans:
            scope = InstrumentationScope(of_scope.scope.name, of_scope.scope.version or None)
            for span in of_scope.spans:
                yield _readable(span, resource, scope)


def _readable(span: trace_pb2.Span, resource: Resource, scope: InstrumentationScope) -> ReadableSpan:
    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.trace import Link, SpanKind
    from opentelemetry.trace.status import Status, StatusCode

    code = {1: StatusCode.OK, 2: StatusCode.ERROR}.get(span.status.code, StatusCode.UNSET)
    kinds = (SpanKind.INTERNAL, SpanKind.INTERNAL, SpanKind.SERVER, SpanKind.CLIENT, SpanKind.PRODUCER)
    return ReadableSpan(
        name=span.name,
        context=_context(span.trace_id, span.span_id, span.trace_state, remote=False),
        parent=_context(span.trace_id, span.parent_span_id, "", remote=True) if span.parent_span_id else None,
        resource=resource,
        attributes=attributes_of(span.attributes),
        events=[Event(each.name, attributes_of(each.attributes), each.time_unix_nano) for each in span.events],
        links=[
            Link(_context(each.trace_id, each.span_id, each.trace_state, remote=True), attributes_of(each.attributes))
            for each in _linked(span.links)
        ],
        kind=(*kinds, SpanKind.CONSUMER)[span.kind] if span.kind <= len(kinds) else SpanKind.INTERNAL,
        status=Status(code, span.status.message or None) if code is StatusCode.ERROR else Status(code),
        start_time=span.start_time_unix_nano,
        end_time=span.end_time_unix_nano,
        instrumentation_scope=scope,
    )


def _linked(links: Iterable[trace_pb2.Span.Link]) -> Iterator[trace_pb2.Span.Link]:
    return (each for each in links if valid_ids(each.trace_id, each.span_id))


def _context(trace_id: bytes, span_id: bytes, state: str, *, remote: bool) -> SpanContext:
    from opentelemetry.trace import SpanContext, TraceFlags, TraceState

    return SpanContext(
        int.from_bytes(trace_id, "big"),
        int.from_bytes(span_id, "big"),
        remote,
        TraceFlags(TraceFlags.SAMPLED),
        TraceState.from_header([state]) if _TRACE_STATE.fullmatch(state) else None,
    )
