from __future__ import annotations

import gzip
import json
import logging
import threading
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from typing import Any

import httpx
import pytest
from google.protobuf.message import Message
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from phasebus.telemetry import EngineSpan, Relay, StepNotice, Telemetry
from phasebus.telemetry.relay.receiver import MOST_BYTES, Received

PLAIN: dict[str, Any] = {"timeout": 60, "trust_env": False, "verify": False}
"""Options of a request without TLS, which need not load the certificates that the system trusts."""

TRACE, SPAN, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "b7ad6b7169203331"


def span(**fields: Any) -> Span:
    return Span(
        **{
            "name": "Load weights",
            "trace_id": bytes.fromhex(TRACE),
            "span_id": bytes.fromhex(SPAN),
            "parent_span_id": bytes.fromhex(PARENT),
            "start_time_unix_nano": 1_000_000_000,
            "end_time_unix_nano": 3_500_000_000,
            "attributes": [KeyValue(key="code.function", value=AnyValue(string_value="load"))],
            **fields,
        }
    )


def request(*spans: Span) -> ExportTraceServiceRequest:
    resource = Resource(attributes=[KeyValue(key="vllm.process_id", value=AnyValue(int_value=7))])
    return ExportTraceServiceRequest(
        resource_spans=[ResourceSpans(resource=resource, scope_spans=[ScopeSpans(spans=spans or [span()])])]
    )


def post_spans(relay: Relay, body: Message | bytes, url: str | None = None, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else body.SerializeToString()
    return httpx.post(
        url or relay.url, content=content, headers={"Content-Type": "application/x-protobuf", **headers}, **PLAIN
    )


def post_notices(relay: Relay, body: str | bytes, **headers: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {relay.token}", "Content-Type": "application/x-ndjson", **headers}
    return httpx.post(relay.notices_url, content=body, headers=headers, **PLAIN)


def line(**fields: object) -> str:
    known = {"event": "started", "step": SPAN, "name": "x", "time_ns": 1, "pid": 2, "process": "Worker_0"}
    return json.dumps({**known, **fields}) + "\n"


@pytest.fixture
def received() -> SimpleQueue[Received]:
    return SimpleQueue()


@pytest.fixture
def relay(received: SimpleQueue[Received]) -> Iterator[Relay]:
    relay = Relay()
    relay.listen(received.put)
    relay.start()
    yield relay
    relay.close()


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
def test_a_span_that_arrives_is_read(relay: Relay, received: SimpleQueue[Received], encoding: str) -> None:
    body = request().SerializeToString()
    content = gzip.compress(body) if encoding == "gzip" else body
    assert post_spans(relay, content, **{"Content-Encoding": encoding}).status_code == 200
    assert received.get(timeout=60) == EngineSpan(
        name="Load weights",
        trace=TRACE,
        span=SPAN,
        parent=PARENT,
        start_ns=1_000_000_000,
        end_ns=3_500_000_000,
        attributes={"code.function": "load"},
        resource={"vllm.process_id": 7},
    )


def test_a_failure_is_read_with_its_reason(relay: Relay, received: SimpleQueue[Received]) -> None:
    post_spans(relay, request(span(status=Status(code=Status.STATUS_CODE_ERROR, message="out of memory"))))
    failed = received.get(timeout=60)
    assert isinstance(failed, EngineSpan)
    assert failed.error == "out of memory"


def test_a_notice_that_arrives_reaches_the_listeners(relay: Relay, received: SimpleQueue[Received]) -> None:
    assert post_notices(relay, line()).status_code == 204
    assert received.get(timeout=60) == StepNotice(
        event="started", step=SPAN, name="x", time_ns=1, pid=2, process="Worker_0"
    )


def test_the_answer_does_not_wait_for_the_listeners(relay: Relay) -> None:
    answered = threading.Event()
    waited: list[bool] = []
    relay.listen(lambda _: waited.append(answered.wait(60)))
    assert post_spans(relay, request()).status_code == 200
    answered.set()
    relay.close()
    assert waited == [True]


def test_requests_without_the_relays_token_are_refused(relay: Relay, received: SimpleQueue[Received]) -> None:
    base = relay.url.rpartition(f"/{relay.token}")[0]
    for url in (f"{base}/v1/traces", f"{base}/wrong/v1/traces"):
        assert post_spans(relay, request(), url).status_code == 401
    for token in ("", "Bearer wrong", f"Basic {relay.token}"):
        assert post_notices(relay, line(), Authorization=token).status_code == 401
        assert httpx.get(relay.gate_url, headers={"Authorization": token}, **PLAIN).status_code == 401
    assert relay.rejected == 8
    with pytest.raises(Empty):
        received.get_nowait()


def test_two_relays_have_different_tokens() -> None:
    first, second = Relay(), Relay()
    assert first.token != second.token
    first.close()
    second.close()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/json"}, 415),
        ({"Content-Encoding": "deflate"}, 415),
        ({"Content-Encoding": "gzip"}, 400),
    ],
)
def test_spans_in_another_form_than_protobuf_are_refused(relay: Relay, headers: dict[str, str], status: int) -> None:
    assert post_spans(relay, request(), **headers).status_code == status


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded"])
def test_notices_that_a_web_page_could_post_are_refused(relay: Relay, content_type: str) -> None:
    assert post_notices(relay, line(), **{"Content-Type": content_type}).status_code == 415


def test_a_request_is_bounded_before_and_after_decompression(relay: Relay) -> None:
    assert post_spans(relay, bytes(MOST_BYTES + 1)).status_code == 413
    assert post_spans(relay, gzip.compress(bytes(MOST_BYTES + 1)), **{"Content-Encoding": "gzip"}).status_code == 413
    truncated = gzip.compress(request().SerializeToString())[:-4]
    assert post_spans(relay, truncated, **{"Content-Encoding": "gzip"}).status_code == 400
    padding = KeyValue(key="x", value=AnyValue(string_value="x" * (MOST_BYTES - 1000)))
    assert post_spans(relay, request(span(attributes=[padding]))).status_code == 200


def nested(depth: int) -> AnyValue:
    value = AnyValue(int_value=1)
    for _ in range(depth):
        value = AnyValue(array_value=ArrayValue(values=[value]))
    return value


@pytest.mark.parametrize(
    "fields",
    [
        {"trace_id": b""},
        {"trace_id": bytes(16)},
        {"trace_id": b"\1" * 99},
        {"span_id": b"\1"},
        {"span_id": bytes(8)},
        {"parent_span_id": b"\1" * 7},
        {"parent_span_id": bytes.fromhex(SPAN)},
        {"start_time_unix_nano": 5, "end_time_unix_nano": 4},
        {"end_time_unix_nano": 2**64 - 1},
        {"name": "x" * 20_000},
        {"attributes": [KeyValue(key=str(number)) for number in range(1001)]},
    ],
)
def test_an_invalid_span_is_rejected_and_counted_and_the_others_are_accepted(
    relay: Relay, received: SimpleQueue[Received], fields: dict[str, Any]
) -> None:
    answer = post_spans(relay, request(span(name="first"), span(**fields), span(name="last")))
    assert answer.status_code == 200
    assert ExportTraceServiceResponse.FromString(answer.content).partial_success.rejected_spans == 1
    names = [getattr(received.get(timeout=60), "name", None) for _ in range(2)]
    assert names == ["first", "last"]
    assert relay.rejected == 1


def test_odd_attributes_become_values_that_json_has(relay: Relay, received: SimpleQueue[Received]) -> None:
    odd = [
        KeyValue(key="nan", value=AnyValue(double_value=float("nan"))),
        KeyValue(key="deep", value=nested(40)),
        KeyValue(key="long", value=AnyValue(string_value="x" * 100_000)),
        KeyValue(key="bytes", value=AnyValue(bytes_value=b"\xff")),
    ]
    post_spans(relay, request(span(attributes=odd)))
    read = received.get(timeout=60)
    assert isinstance(read, EngineSpan)
    assert read.attributes == {"nan": "nan", "long": "x" * 16_384}


@pytest.mark.parametrize(
    "fields",
    [
        {"event": "danced"},
        {"event": ["started"]},
        {"step": "zz"},
        {"parent": "zz<script>"},
        {"pid": 2**40},
        {"pid": "x"},
        {"time_ns": -(10**30)},
        {"time_ns": 10**25},
        {"name": "a\x1b[2J"},
        {"name": "x" * 1000},
        {"attributes": {"x": float("nan")}},
        {"attributes": {"x": ["list"]}},
        {"attributes": {str(number): 1 for number in range(101)}},
        {"event": "exited", "attributes": {"exit_code": "abc"}},
        {"event": "exited", "attributes": {"exit_code": True}},
        {"event": "exited"},
        {"error": "x" * 20_000},
    ],
)
def test_an_invalid_notice_is_rejected_and_counted_and_the_others_are_accepted(
    relay: Relay, received: SimpleQueue[Received], fields: dict[str, Any]
) -> None:
    assert post_notices(relay, line(name="first") + line(**fields) + line(name="last")).status_code == 204
    names = [getattr(received.get(timeout=60), "name", None) for _ in range(2)]
    assert names == ["first", "last"]
    assert relay.rejected == 1


@pytest.mark.parametrize("body", ["{}", "hello", "[" * 100_000, b"\xff\0{}\n", '{"event":"started","name":"\\ud800"}'])
def test_a_body_without_a_valid_notice_is_refused(relay: Relay, body: str | bytes) -> None:
    assert post_notices(relay, body).status_code == 400
    assert relay.rejected >= 1


def test_rejections_are_logged_once(relay: Relay, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        post_notices(relay, "{}")
    assert [record.levelno for record in caplog.records if "the relay rejects" in record.message] == [logging.WARNING]
    assert relay.rejected == 3


def test_a_listener_that_raises_stops_no_other_and_is_logged_once(
    relay: Relay, received: SimpleQueue[Received], caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: Received) -> None:
        raise ValueError("broken")

    end = relay.listen(broken)
    for _ in range(2):
        assert post_spans(relay, request()).status_code == 200
        assert isinstance(received.get(timeout=60), EngineSpan)
    relay.close()
    assert caplog.text.count("a listener of the relay failed") == 1
    end()


@pytest.mark.anyio
async def test_telemetry_receives_spans_only_once_an_engine_is_going_to_send_them() -> None:
    before = set(threading.enumerate())

    def receives() -> bool:
        return "phasebus span relay" in {thread.name for thread in set(threading.enumerate()) - before}

    async with Telemetry(port=None, environment={}) as telemetry:
        assert not receives()
        environment = telemetry.engine_environment({})
        assert environment["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] == telemetry.relay.url
        assert telemetry.relay.url.startswith("http://127.0.0.1:")
        assert receives()


def test_rejections_and_lost_spans_are_metrics() -> None:
    telemetry = Telemetry(port=None, environment={})
    telemetry.relay.start()
    post_notices(telemetry.relay, "{}")
    value = telemetry.metrics.registry.get_sample_value
    assert value("phasebus_relay_rejected_total") == 1
    assert value("phasebus_spans_dropped_total") == 0
    telemetry.relay.close()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, {"OTEL_TRACES_SAMPLER": "parentbased_always_on"}),
        ({"OTEL_TRACES_SAMPLER": "always_off"}, {"OTEL_TRACES_SAMPLER": "parentbased_always_off"}),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "9"}, {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "9"}),
        ({"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "-1"}, {"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "128"}),
        (
            {"OTEL_EXPORTER_OTLP_COMPRESSION": "zip", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"},
            {"OTEL_EXPORTER_OTLP_COMPRESSION": "none"},
        ),
    ],
)
def test_an_engine_inherits_no_variable_that_its_sdk_rejects(
    variables: dict[str, str], expected: dict[str, str]
) -> None:
    telemetry = Telemetry(port=None, environment=variables)
    assert expected.items() <= telemetry.engine_environment(variables).items()
    telemetry.relay.close()
