"""No bytes end what reads them: they are notices and spans that every later part can use, or they are rejected."""

from __future__ import annotations

import json
import zlib
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource

from phasebus.telemetry.otel.printable import printable_span
from phasebus.telemetry.relay import NoticeReader, StepNotice, read_spans
from phasebus.telemetry.relay.forward import readable_spans
from phasebus.telemetry.relay.receiver import MOST_BYTES, _decompressed
from phasebus.telemetry.relay.spans import reject_spans

ID = st.one_of(st.binary(max_size=20), st.just(b"\1" * 16), st.just(b"\2" * 8))
VALUE: st.SearchStrategy[dict[str, Any]] = st.deferred(
    lambda: st.one_of(
        st.fixed_dictionaries({"string_value": st.text(max_size=5)}),
        st.fixed_dictionaries({"int_value": st.integers(-(2**63), 2**63 - 1)}),
        st.fixed_dictionaries({"double_value": st.floats()}),
        st.fixed_dictionaries({"bytes_value": st.binary(max_size=3)}),
        st.fixed_dictionaries({"array_value": st.fixed_dictionaries({"values": st.lists(VALUE, max_size=3)})}),
        st.just({}),
    )
)
ATTRIBUTES = st.lists(st.fixed_dictionaries({"key": st.text(max_size=3), "value": VALUE}), max_size=3)
TIME = st.one_of(st.integers(0, 2**64 - 1), st.integers(1, 2**62))
SPANS = st.lists(
    st.fixed_dictionaries(
        {
            "trace_id": ID,
            "span_id": ID,
            "parent_span_id": ID,
            "trace_state": st.text(max_size=8),
            "name": st.text(max_size=8),
            "kind": st.integers(-1, 9),
            "start_time_unix_nano": TIME,
            "end_time_unix_nano": TIME,
            "attributes": ATTRIBUTES,
            "events": st.lists(
                st.fixed_dictionaries({"name": st.text(max_size=3), "time_unix_nano": TIME, "attributes": ATTRIBUTES}),
                max_size=2,
            ),
            "links": st.lists(st.fixed_dictionaries({"trace_id": ID, "span_id": ID}), max_size=2),
            "status": st.fixed_dictionaries({"code": st.integers(-1, 5), "message": st.text(max_size=5)}),
        }
    ),
    max_size=4,
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)


def check(request: ExportTraceServiceRequest) -> None:
    """Take a request the way of the relay, to the exporter and to the listeners."""
    reject_spans(request)
    for span in read_spans(request):
        json.dumps([span.attributes, span.resource, span.error], allow_nan=False)
    spans = [printable_span(span) for span in readable_spans(request, Resource({}), local=True)]
    assert len(spans) == len(list(read_spans(request)))
    encode_spans(spans).SerializeToString()


@given(SPANS, ATTRIBUTES)
def test_any_span_is_forwarded_or_rejected(spans: list[dict[str, Any]], attributes: list[dict[str, Any]]) -> None:
    of_resource = {"resource": {"attributes": attributes}, "scope_spans": [{"spans": spans}]}
    check(ExportTraceServiceRequest(resource_spans=[of_resource]))  # type: ignore[list-item]


def test_links_and_states_that_the_sdk_cannot_encode_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    ids = {"trace_id": b"\1" * 16, "span_id": b"\2" * 8}
    links = [ids, {"trace_id": b"\1" * 16, "span_id": b"\1" * 16}, {"trace_id": bytes(16), "span_id": bytes(8)}]
    span = {**ids, "trace_state": "Å=ë", "links": links, "attributes": [{"key": "", "value": {"int_value": 1}}]}
    request = ExportTraceServiceRequest(resource_spans=[{"scope_spans": [{"spans": [span]}]}])  # type: ignore[list-item]
    check(request)
    (forwarded,) = readable_spans(request, Resource({}), local=True)
    assert len(forwarded.links) == 1
    assert caplog.text == ""


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_of_spans_or_no_protobuf(body: bytes) -> None:
    try:
        request = ExportTraceServiceRequest.FromString(body)
    except DecodeError:
        return
    check(request)


@given(st.one_of(st.binary(max_size=200), st.lists(JSON, max_size=3).map(lambda rows: _lines(*rows))))
def test_any_bytes_are_notices_or_faults(body: bytes) -> None:
    notices, faults = NoticeReader().read(body)
    assert len(notices) + len(faults) == len(body.splitlines())


@given(
    st.dictionaries(
        st.sampled_from(["event", "step", "parent", "name", "time_ns", "pid", "attributes", "error", "traced"]), JSON
    )
)
def test_a_notice_with_any_field_is_one_that_json_can_carry_or_a_fault(fields: dict[str, Any]) -> None:
    known = {"event": "started", "step": "a" * 16, "name": "x", "time_ns": 1, "pid": 2, "process": "p"}
    notices, faults = NoticeReader().read(_lines({**known, **fields}))
    assert len(notices) + len(faults) == 1
    for notice in notices:
        assert isinstance(notice, StepNotice)
        json.dumps(notice.model_dump(), allow_nan=False).encode()


@given(st.binary(max_size=100))
def test_any_bytes_are_gzip_of_bounded_size_or_an_error(body: bytes) -> None:
    try:
        whole = _decompressed(body)
    except zlib.error:
        return
    assert whole is None or len(whole) <= MOST_BYTES


def _lines(*rows: object) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()
