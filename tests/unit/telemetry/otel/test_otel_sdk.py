"""What is relied on in OpenTelemetry's SDK and exporters beyond their documentation."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import context
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from phasebus.telemetry.otel.printable import printable_span
from phasebus.telemetry.otel.sdk import suppressed_instrumentation
from phasebus.telemetry.relay.forward import readable_spans
from phasebus.telemetry.relay.spans import reject_spans

CONTEXT = SpanContext(2**120, 2**60, False, TraceFlags(1))
PARENT = SpanContext(2**120, 2**61, True, TraceFlags(1))

values = st.one_of(
    st.text(st.characters(), max_size=5),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.booleans(),
    st.binary(max_size=3),
    st.none(),
    st.lists(st.one_of(st.text(max_size=3), st.integers()), max_size=3),
)


def made_by_hand(**fields: object) -> ReadableSpan:
    return ReadableSpan(
        "Load weights",
        CONTEXT,
        PARENT,
        Resource({"service.name": "s"}),
        {"a": 1, "l": ("x", "y")},
        (Event("e", {"b": True}, 5),),
        (Link(PARENT, {"c": 1.5}),),
        SpanKind.CLIENT,
        status=Status(StatusCode.ERROR, "why"),
        start_time=3,
        end_time=9,
        **fields,  # type: ignore[arg-type]
    )


def test_a_span_made_with_the_public_constructor_is_exported_as_it_is() -> None:
    (of_resource,) = encode_spans([made_by_hand()]).resource_spans
    (span,) = of_resource.scope_spans[0].spans
    assert (span.name, span.start_time_unix_nano, span.end_time_unix_nano) == ("Load weights", 3, 9)
    assert span.trace_id == CONTEXT.trace_id.to_bytes(16, "big")
    assert span.parent_span_id == PARENT.span_id.to_bytes(8, "big")
    assert (span.status.message, span.events[0].name, span.kind) == ("why", "e", 3)


def test_a_span_that_is_forwarded_is_the_span_that_arrived() -> None:
    request = encode_spans([made_by_hand()])
    (forwarded,) = readable_spans(request, Resource({}), local=True)
    again = encode_spans([printable_span(forwarded)])
    again.resource_spans[0].resource.Clear()
    request.resource_spans[0].resource.Clear()
    assert again == request


@given(st.dictionaries(st.text(st.characters(), min_size=1, max_size=3), values, max_size=4), st.text(st.characters()))
def test_any_attribute_and_name_can_be_encoded(attributes: dict[str, object], name: str) -> None:
    odd = ReadableSpan(name, CONTEXT, attributes=attributes, start_time=1, end_time=2)  # type: ignore[arg-type]
    request = encode_spans([printable_span(odd)])
    assert request.FromString(request.SerializeToString()) == request
    assert reject_spans(request) == []


def test_numbers_beyond_otlps_become_text() -> None:
    odd = ReadableSpan("x", CONTEXT, attributes={"big": 2**70, "nan": math.nan, "fits": -(2**63)})
    assert dict(printable_span(odd).attributes or {}) == {"big": str(2**70), "nan": "nan", "fits": -(2**63)}


def test_the_context_has_the_key_that_keeps_exports_from_being_traced() -> None:
    key = context._SUPPRESS_INSTRUMENTATION_KEY
    with suppressed_instrumentation():
        assert context.get_value(key) is True
    assert context.get_value(key) is None


def test_a_version_without_that_key_exports_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(context, "_SUPPRESS_INSTRUMENTATION_KEY")
    with suppressed_instrumentation():
        assert context.get_current() is not None
