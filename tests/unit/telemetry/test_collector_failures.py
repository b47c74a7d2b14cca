"""Spans reach a collector that refuses, restarts or asks to wait; those that cannot are counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
import requests
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from phasebus.bus import StepFinished, StepStarted
from phasebus.observers import SpanObserver
from phasebus.telemetry import Telemetry
from phasebus.telemetry.collector import guarded
from phasebus.telemetry.otel.rejections import Rejections, cause_of
from tests.support.otel_version import exports_since
from tests.support.otlp import OtlpSink, otlp_sink
from tests.support.programs import free_port
from tests.support.traces import assert_is_one_trace, exported_spans
from tests.support.waiting import wait_until

ROOT = "f" * 16


@pytest.fixture
def sink() -> Iterator[OtlpSink]:
    with otlp_sink() as sink:
        yield sink


def telemetry_to(url: str, **variables: str) -> Telemetry:
    batches = {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "5", "OTEL_BSP_SCHEDULE_DELAY": "10"}
    return Telemetry(port=None, environment={"OTEL_EXPORTER_OTLP_ENDPOINT": url, **batches, **variables})


def run_steps(telemetry: Telemetry, count: int) -> None:
    """Run a step with `count` steps inside it."""
    observer = SpanObserver(telemetry.tracing)
    observer.observe(StepStarted(step=ROOT, kind="node", name="n"))
    for number in range(1, count + 1):
        step = f"{number:016x}"
        observer.observe(StepStarted(step=step, parent=ROOT, kind="engine_step", name="p"))
        observer.observe(StepFinished(step=step, parent=ROOT, kind="engine_step", name="p", seconds=0.0))
    observer.observe(StepFinished(step=ROOT, kind="node", name="n", seconds=1.0))
    observer.close()


def assert_arrives(sink: OtlpSink, count: int) -> None:
    wait_until(lambda: len(sink.spans) >= count, "every span has arrived")
    spans = exported_spans(export.content for export in sink.exports)
    assert len(spans) == count
    assert_is_one_trace(spans)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_headers_of_a_collector_are_not_sent_where_it_redirects_to(sink: OtlpSink, status: int) -> None:
    with otlp_sink() as other:
        sink.answer = lambda _: (status, {"Location": f"{other.url}/v1/traces"})
        telemetry = telemetry_to(sink.url, OTEL_EXPORTER_OTLP_HEADERS="api-key=secret")
        run_steps(telemetry, 1)
        assert not telemetry.tracing.close()
        assert telemetry.tracing.dropped == 2  # a redirect is no success, although OpenTelemetry takes it for one
        with guarded(requests.Session(), {}) as session:
            session.trust_env = False
            answer = session.post(f"{sink.url}/v1/traces", b"", headers={"api-key": "secret"})
        assert (answer.status_code, len(sink.moments) >= 2, other.moments) == (status, True, [])


@pytest.mark.parametrize("headers", [{"Authorization": "Bearer secret"}, {"authorization": "Bearer secret"}])
def test_authorization_for_a_collector_is_not_replaced_by_that_of_netrc(
    sink: OtlpSink, headers: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login me password other\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with guarded(requests.Session(), headers) as session:
        session.headers.update(headers)
        session.post(f"{sink.url}/v1/traces", b"", proxies={"http": ""})
    assert sink.exports[0].headers["authorization"] == "Bearer secret"


@pytest.mark.parametrize("status", [pytest.param(429, marks=exports_since(1, 45, "try again after 429")), 503])
def test_spans_reach_a_collector_that_refuses_half_of_the_requests(sink: OtlpSink, status: int) -> None:
    sink.answer = lambda number: (status if number % 2 == 0 else 200, {"Retry-After": "0"})
    telemetry = telemetry_to(sink.url)
    run_steps(telemetry, 49)
    assert_arrives(sink, 50)
    assert telemetry.tracing.close()
    assert telemetry.tracing.dropped == 0


@pytest.mark.parametrize(
    ("status", "content_type", "why"),
    [
        (308, "text/plain", "it redirects, with HTTP 308; name the address that it redirects to"),
        (200, "text/html; charset=utf-8", "it answers with a web page; is this the address of a collector?"),
        (404, "text/html", "it answers HTTP 404"),
    ],
)
def test_spans_that_a_server_other_than_a_collector_answers_are_counted_and_the_answer_named(
    sink: OtlpSink, caplog: pytest.LogCaptureFixture, status: int, content_type: str, why: str
) -> None:
    sink.answer = lambda _: (status, {"Content-Type": content_type})
    telemetry = telemetry_to(sink.url)
    run_steps(telemetry, 1)
    assert not telemetry.tracing.close()
    assert telemetry.tracing.dropped == 2
    assert f"({why}); the start-up goes on without" in caplog.text


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (requests.ConnectionError("HTTPConnectionPool(…: [Errno -2] Name or service not known)"), "Name or service not known"),
        (requests.exceptions.SSLError("… certificate verify failed: self-signed certificate (_ssl.c:1)"), "its certificate is rejected: self-signed certificate"),
        (requests.exceptions.SSLError("[SSL: WRONG_VERSION_NUMBER] wrong version number"), "WRONG_VERSION_NUMBER"),
        (requests.exceptions.ReadTimeout("read timed out"), "it does not answer in time"),
        (requests.exceptions.InvalidURL("x"), "InvalidURL"),
        (OSError("Could not find the TLS key file, invalid path: /gone"), "Could not find the TLS key file, invalid path: /gone"),
    ],
)  # fmt: skip
def test_cause_of_a_failed_request_is_named(error: Exception, cause: str) -> None:
    assert cause_of(error) == cause


def test_request_without_a_response_is_a_refusal_with_its_cause() -> None:
    rejections = Rejections()
    with rejections.of_session(requests.Session()) as session:
        session.trust_env = False
        with pytest.raises(requests.ConnectionError):
            session.post(f"http://127.0.0.1:{free_port()}", b"")
    assert str(rejections.refusal) == "Connection refused"


def test_connection_that_was_idle_for_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now, closed = [0.0], []
    monkeypatch.setattr("phasebus.telemetry.otel.rejections.time", SimpleNamespace(monotonic=lambda: now[0]))
    session: Any = SimpleNamespace(
        hooks={"response": []}, request=lambda: "response", close=lambda: closed.append(now[0])
    )
    Rejections().of_session(session)
    for now[0] in (10.0, 39.0, 70.0, 99.0):
        assert session.request() == "response"
    assert closed == [70.0]


def test_error_of_a_request_shows_no_secret_in_the_query_of_the_address() -> None:
    with Rejections().of_session(requests.Session()) as session:
        session.trust_env = False
        with pytest.raises(requests.ConnectionError) as raised:
            session.post(f"http://127.0.0.1:{free_port()}/v1/traces?api-key=hunter2secret", b"")
    assert "Connection refused" in str(raised.value)
    assert "hunter2secret" not in str(raised.value)


def partial_success(rejected: int, why: str) -> ExportTraceServiceResponse:
    response = ExportTraceServiceResponse()
    response.partial_success.rejected_spans = rejected
    response.partial_success.error_message = why
    return response


@pytest.mark.parametrize(
    "content",
    [
        partial_success(2, "the quota is used up").SerializeToString(),
        b'{"partialSuccess": {"rejectedSpans": "2", "errorMessage": "the quota is used up", "other": 1}}',
    ],
    ids=["protobuf", "json"],
)
def test_spans_that_a_collector_rejects_in_a_success_are_counted_and_named(
    sink: OtlpSink, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    sink.content = content
    telemetry = telemetry_to(sink.url)
    run_steps(telemetry, 9)  # two requests of five spans
    assert not telemetry.tracing.close()
    assert telemetry.tracing.dropped == 4
    assert "2 of them are rejected: the quota is used up" in caplog.text


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"{", b"<html>", b"\xff" * 100, partial_success(0, "").SerializeToString()]
)
def test_a_success_with_any_other_content_rejects_no_span(sink: OtlpSink, content: bytes) -> None:
    sink.content = content
    telemetry = telemetry_to(sink.url)
    run_steps(telemetry, 9)
    assert telemetry.tracing.close()
    assert telemetry.tracing.dropped == 0


@contextmanager
def grpc_collector(
    answer: Callable[[Any, Any], ExportTraceServiceResponse], most_bytes: int = -1
) -> Iterator[Callable[[], Telemetry]]:
    """A collector that answers each request over gRPC; returns what exports to it.

    Args:
        answer: Called with a request and its context.
        most_bytes: The size of a request that is accepted; -1 for any size.
    """

    class Service(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request: Any, context: Any) -> ExportTraceServiceResponse:  # noqa: N802
            return answer(request, context)

    limit = [("grpc.max_receive_message_length", most_bytes)]
    server = grpc.server(futures.ThreadPoolExecutor(1), options=limit)
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Service(), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        variables = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "100"}
        yield lambda: telemetry_to(f"http://127.0.0.1:{port}", **variables)
    finally:
        server.stop(None).wait()


def test_spans_that_a_collector_rejects_over_grpc_are_counted() -> None:
    requests: list[Any] = []

    def answer(request: Any, _: Any) -> ExportTraceServiceResponse:
        requests.append(request)
        return partial_success(1, "too old")

    with grpc_collector(answer) as telemetry_to_it:
        telemetry = telemetry_to_it()
        run_steps(telemetry, 9)
        assert not telemetry.tracing.close()
    assert telemetry.tracing.dropped == len(requests) > 0


def test_reason_of_a_collector_over_grpc_is_named(caplog: pytest.LogCaptureFixture) -> None:
    def answer(_: Any, context: Any) -> ExportTraceServiceResponse:
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "the key has expired")
        raise AssertionError("abort raises")

    with grpc_collector(answer) as telemetry_to_it:
        telemetry = telemetry_to_it()
        run_steps(telemetry, 3)
        assert not telemetry.tracing.close()
    assert "(UNAUTHENTICATED: the key has expired)" in caplog.text


def test_spans_that_are_too_many_for_a_request_over_grpc_are_exported_in_smaller_ones() -> None:
    received: list[str] = []

    def answer(request: Any, _: Any) -> ExportTraceServiceResponse:
        received.extend(
            span.name for each in request.resource_spans for scope in each.scope_spans for span in scope.spans
        )
        return ExportTraceServiceResponse()

    with grpc_collector(answer, most_bytes=4000) as telemetry_to_it:
        telemetry = telemetry_to_it()
        run_steps(telemetry, 100)
        assert telemetry.tracing.close()
    assert len(received) == 101


@exports_since(1, 45, "wait as long as Retry-After asks")
def test_spans_wait_as_long_as_the_collector_asks(sink: OtlpSink) -> None:
    sink.answer = lambda number: (429, {"Retry-After": "2"}) if number == 0 else (200, {})
    telemetry = telemetry_to(sink.url)
    run_steps(telemetry, 4)
    assert_arrives(sink, 5)
    assert sink.moments[1] - sink.moments[0] >= 1.9
    assert telemetry.tracing.close()


def test_spans_reach_a_collector_that_restarts() -> None:
    port = free_port()
    telemetry = telemetry_to(f"http://127.0.0.1:{port}")
    with otlp_sink(port=port) as before:
        before.answer = lambda _: (500, {"Connection": "close"})
        run_steps(telemetry, 19)
        wait_until(lambda: before.moments, "a request was refused")
    with otlp_sink(port=port) as after:
        assert_arrives(after, 20)
        assert telemetry.tracing.close()


def test_spans_beyond_the_queue_are_counted_while_a_slow_collector_answers(sink: OtlpSink) -> None:
    sink.answering.clear()
    telemetry = telemetry_to(sink.url, OTEL_BSP_MAX_QUEUE_SIZE="1000", OTEL_BSP_MAX_EXPORT_BATCH_SIZE="500")
    run_steps(telemetry, 4999)
    dropped = telemetry.tracing.dropped
    assert 2500 < dropped < 5000
    sink.answering.set()
    wait_until(lambda: len(sink.spans) == 5000 - dropped, "the others have arrived")
    assert len({span.span_id for span in sink.spans}) == 5000 - dropped
    assert not telemetry.tracing.close()
