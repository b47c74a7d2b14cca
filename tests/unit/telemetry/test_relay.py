from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import SimpleQueue

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from phasebus.telemetry import Collector, EngineSpan, Relay, StepNotice, Telemetry
from phasebus.telemetry.relay import Forwarder
from phasebus.telemetry.relay.receiver import Told

TRACE, SPAN, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "b7ad6b7169203331"


def request(*, error: str | None = None) -> ExportTraceServiceRequest:
    span = Span(
        name="Load weights",
        trace_id=bytes.fromhex(TRACE),
        span_id=bytes.fromhex(SPAN),
        parent_span_id=bytes.fromhex(PARENT),
        start_time_unix_nano=1_000_000_000,
        end_time_unix_nano=3_500_000_000,
        attributes=[KeyValue(key="code.function", value=AnyValue(string_value="load"))],
        status=Status(code=Status.STATUS_CODE_ERROR, message=error) if error else None,
    )
    resource = Resource(attributes=[KeyValue(key="vllm.process_id", value=AnyValue(int_value=7))])
    return ExportTraceServiceRequest(
        resource_spans=[ResourceSpans(resource=resource, scope_spans=[ScopeSpans(spans=[span])])]
    )


@pytest.fixture
def spans() -> SimpleQueue[Told]:
    return SimpleQueue()


@pytest.fixture
def relay(spans: SimpleQueue[Told]) -> Iterator[Relay]:
    relay = Relay(Forwarder(None))
    relay.listen(spans.put)
    relay.start()
    yield relay
    relay.close()


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
def test_a_span_that_arrives_is_read(relay: Relay, spans: SimpleQueue[Told], encoding: str) -> None:
    body = request().SerializeToString()
    content = gzip.compress(body) if encoding == "gzip" else body
    assert httpx.post(relay.url, content=content, headers={"Content-Encoding": encoding}, timeout=60).status_code == 200
    assert spans.get(timeout=60) == EngineSpan(
        name="Load weights",
        trace=TRACE,
        span=SPAN,
        parent=PARENT,
        start_ns=1_000_000_000,
        end_ns=3_500_000_000,
        attributes={"code.function": "load"},
        resource={"vllm.process_id": 7},
    )


def test_a_failure_is_read_with_its_reason(relay: Relay, spans: SimpleQueue[Told]) -> None:
    httpx.post(relay.url, content=request(error="out of memory").SerializeToString(), timeout=60)
    told = spans.get(timeout=60)
    assert isinstance(told, EngineSpan)
    assert told.error == "out of memory"


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
def test_what_is_no_otlp_is_refused(relay: Relay, encoding: str) -> None:
    answer = httpx.post(relay.url, content=b"\xff not otlp", headers={"Content-Encoding": encoding}, timeout=60)
    assert answer.status_code == 400


def test_a_listener_that_raises_harms_neither_the_relay_nor_the_others(
    relay: Relay, spans: SimpleQueue[Told], caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: Told) -> None:
        raise ValueError("broken")

    end = relay.listen(broken)
    assert httpx.post(relay.url, content=request().SerializeToString(), timeout=60).status_code == 200
    assert spans.get(timeout=60).name == "Load weights"
    assert "a listener failed" in caplog.text
    end()


def test_an_engine_is_told_where_to_send_its_spans(relay: Relay) -> None:
    environment = relay.environment()
    assert environment["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] == relay.url
    assert relay.url.startswith("http://127.0.0.1:")


def test_a_notice_that_arrives_is_given_to_those_who_listen(relay: Relay, spans: SimpleQueue[Told]) -> None:
    line = {"event": "started", "step": SPAN, "name": "x", "time_ns": 1, "pid": 2, "process": "Worker_0"}
    assert httpx.post(relay.notices_url, content=json.dumps(line) + "\n", timeout=60).status_code == 204
    assert spans.get(timeout=60) == StepNotice(
        event="started", step=SPAN, name="x", time_ns=1, pid=2, process="Worker_0"
    )


@pytest.mark.parametrize("line", ["{}", "hello", '{"event": "danced"}'])
def test_what_is_no_notice_is_refused(relay: Relay, line: str) -> None:
    assert httpx.post(relay.notices_url, content=line, timeout=60).status_code == 400


@pytest.fixture
def collector() -> Iterator[tuple[str, SimpleQueue[tuple[dict[str, str], bytes]]]]:
    received: SimpleQueue[tuple[dict[str, str], bytes]] = SimpleQueue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.put((dict(self.headers), body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1/traces", received
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_request_is_handed_on_as_it_came_with_the_users_headers(
    collector: tuple[str, SimpleQueue[tuple[dict[str, str], bytes]]],
) -> None:
    url, received = collector
    forwarder = Forwarder(Collector(protocol="http/protobuf", endpoint=url, headers={"api-key": "k"}))
    forwarder.send(request())
    headers, body = received.get(timeout=60)
    assert ExportTraceServiceRequest.FromString(body) == request()
    assert headers["api-key"] == "k"
    forwarder.close()
    assert forwarder.dropped == 0


def test_a_collector_that_is_away_costs_the_sender_nothing_and_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    away = Collector(protocol="http/protobuf", endpoint="http://127.0.0.1:9/v1/traces", timeout=1.0)
    forwarder = Forwarder(away, limit=1)
    for _ in range(20):
        forwarder.send(request())  # returns though nobody takes them
    forwarder.close()
    assert forwarder.dropped == 20
    assert caplog.text.count("cannot be handed on") == 1


@pytest.mark.anyio
async def test_telemetry_receives_spans_only_once_an_engine_is_going_to_send_them() -> None:
    before = set(threading.enumerate())

    def receives() -> bool:
        return "phasebus span relay" in {thread.name for thread in set(threading.enumerate()) - before}

    async with Telemetry(port=None, environment={}) as telemetry:
        assert not receives()
        telemetry.relay.environment()
        assert receives()
