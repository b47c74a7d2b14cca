from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent import futures
from inspect import signature
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import SpanContext

from phasebus.telemetry import Collector
from phasebus.telemetry.otel.findings import Findings
from tests.support.otlp import Authority, otlp_sink

SPAN = ReadableSpan("x", SpanContext(1, 1, False), start_time=1, end_time=2)


def collector_of(environment: dict[str, str]) -> tuple[Collector, list[str]]:
    findings = Findings()
    collector = Collector.from_environment(environment, findings=findings)
    assert collector is not None
    return collector, findings.problems


def test_nothing_is_exported_where_no_collector_is_named() -> None:
    assert Collector.from_environment({}) is None


@pytest.mark.parametrize(
    "off", [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}, {"OTEL_TRACES_EXPORTER": "console"}]
)
def test_the_standard_switches_turn_exporting_off(off: dict[str, str]) -> None:
    assert Collector.from_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", **off}) is None


@pytest.mark.parametrize(
    ("protocol", "endpoint"), [("grpc", "http://localhost:4317"), ("http/protobuf", "http://localhost:4318/v1/traces")]
)
def test_an_exporter_that_is_named_without_an_endpoint_gets_the_standards(protocol: str, endpoint: str) -> None:
    collector, _ = collector_of({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": protocol})
    assert collector.endpoint == endpoint


@pytest.mark.parametrize("path", ["/v1/traces", "/v1/traces/", "/v1/metrics"])
def test_path_of_a_signal_in_the_general_endpoint_is_a_problem_and_not_doubled(path: str) -> None:
    collector, problems = collector_of({"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://c:4318/otlp{path}"})
    assert collector.endpoint == "http://c:4318/otlp/v1/traces"
    assert len(problems) == 1
    assert problems[0].endswith("the path of a signal is appended to it. 'http://c:4318/otlp' is used")
    own = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://c:4318/otlp{path}"}
    assert (collector_of(own)[0].endpoint, collector_of(own)[1]) == (own["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"], [])


def test_only_the_base_endpoint_gets_the_path_of_traces() -> None:
    assert collector_of({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318/"})[0].endpoint == "http://c:4318/v1/traces"
    own, _ = collector_of({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/here"})
    assert own.endpoint == "http://c:4318/here"


def test_the_variables_of_traces_win_over_the_general_ones() -> None:
    collector, problems = collector_of(
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc",
            "OTEL_EXPORTER_OTLP_HEADERS": "api-key=secret",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "3",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
            "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": "gzip",
        }
    )
    assert (collector.protocol, collector.endpoint, collector.timeout) == ("grpc", "http://c:4317", 3.0)
    assert collector.headers == {"api-key": "secret"}
    assert collector.compression == "gzip"
    assert "secret" not in repr(collector)
    assert problems == []


@pytest.mark.parametrize("value", ["api-key=k,Bearer hunter2", 'api-key=k,"x=hunter2"', "api-key=k,x=hunter2é"])
def test_a_header_that_is_none_is_one_warning_without_its_value(value: str, caplog: pytest.LogCaptureFixture) -> None:
    collector, problems = collector_of({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_EXPORTER_OTLP_HEADERS": value})
    assert collector.headers == {"api-key": "k"}
    assert problems == ["item 2 of OTEL_EXPORTER_OTLP_HEADERS is not NAME=VALUE in plain ASCII; it is ignored"]
    assert not caplog.records


@pytest.mark.parametrize(
    ("variable", "value", "used"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier-pigeon", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "soon", "10"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "-1", "10"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0.000001", "10"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1e300", "10"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "nan", "10"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip", "none"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/missing.pem", "no such file"),
    ],
)
def test_a_value_that_cannot_be_used_is_one_warning_with_what_is_used(variable: str, value: str, used: str) -> None:
    _, problems = collector_of({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", variable: value})
    assert len(problems) == 1
    assert problems[0].startswith(f"{variable} is '{value}'")
    assert problems[0].endswith(f"{used} is used")


def test_an_endpoint_that_is_no_url_is_one_warning_and_no_collector() -> None:
    findings = Findings()
    assert Collector.from_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"}, findings=findings) is None
    assert len(findings.problems) == 1


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.made_in(tmp_path_factory.mktemp("authority"))


@pytest.mark.parametrize("compression", ["none", "gzip", "deflate"])
def test_http_export_uses_headers_and_compression(compression: str) -> None:
    with otlp_sink() as sink:
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": sink.url,
            "OTEL_EXPORTER_OTLP_HEADERS": "api-key=k%20y",
            "OTEL_EXPORTER_OTLP_COMPRESSION": compression,
        }
        exporter = collector_of(variables)[0].exporter()
        assert exporter.export([SPAN]) is SpanExportResult.SUCCESS
        exporter.shutdown()
        (export,) = sink.exports
    assert export.path == "/v1/traces"
    assert export.headers["api-key"] == "k y"
    assert export.headers.get("content-encoding", "none") == compression


def test_http_export_uses_the_authority_and_the_certificate_of_the_client(authority: Authority) -> None:
    with otlp_sink(authority.server_context(mutual=True)) as sink:
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": sink.url,
            "OTEL_EXPORTER_OTLP_CERTIFICATE": str(authority.certificate),
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": str(authority.client_certificate),
            "OTEL_EXPORTER_OTLP_CLIENT_KEY": str(authority.client_key),
        }
        exporter = collector_of(variables)[0].exporter()
        assert exporter.export([SPAN]) is SpanExportResult.SUCCESS
        exporter.shutdown()
        assert [span.name for span in sink.spans] == ["x"]


def test_a_collector_on_loopback_is_reached_without_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with otlp_sink() as sink:
        exporter = collector_of({"OTEL_EXPORTER_OTLP_ENDPOINT": sink.url})[0].exporter()
        assert exporter.export([SPAN]) is SpanExportResult.SUCCESS
        exporter.shutdown()


@pytest.fixture
def grpc_port(authority: Authority) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """A collector that receives OTLP over gRPC with mutual TLS, and the metadata of each request."""
    received: list[dict[str, Any]] = []

    class Service(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request: Any, context: Any) -> ExportTraceServiceResponse:  # noqa: N802
            received.append(dict(context.invocation_metadata()))
            return ExportTraceServiceResponse()

    server = grpc.server(futures.ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Service(), server)  # type: ignore[no-untyped-call]
    pair = (authority.server_key.read_bytes(), authority.server_certificate.read_bytes())
    credentials = grpc.ssl_server_credentials([pair], authority.certificate.read_bytes(), require_client_auth=True)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    yield port, received
    server.stop(None).wait()


def test_grpc_export_uses_headers_and_certificates(
    grpc_port: tuple[int, list[dict[str, Any]]], authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "channel_options" in signature(OTLPSpanExporter).parameters:  # without them, gRPC asks the proxy
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    port, received = grpc_port
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"https://127.0.0.1:{port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_EXPORTER_OTLP_HEADERS": "api-key=k",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_EXPORTER_OTLP_CERTIFICATE": str(authority.certificate),
        "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": str(authority.client_certificate),
        "OTEL_EXPORTER_OTLP_CLIENT_KEY": str(authority.client_key),
    }
    exporter = collector_of(variables)[0].exporter()
    assert exporter.export([SPAN]) is SpanExportResult.SUCCESS
    exporter.shutdown()
    assert [metadata["api-key"] for metadata in received] == ["k"]


@pytest.mark.parametrize("wanted", [None, "1"])
def test_grpc_has_no_part_in_the_forks_of_this_process_unless_its_variable_is_set(wanted: str | None) -> None:
    code = """
import contextlib, os, subprocess, sys
from phasebus.telemetry.collector import Collector
exporter = Collector(protocol="grpc", endpoint="127.0.0.1:1", insecure=True).exporter()
print(os.environ.get("GRPC_ENABLE_FORK_SUPPORT"))
import grpc
with contextlib.suppress(grpc.FutureTimeoutError):  # a call, which would keep the handlers from running, and log that
    grpc.channel_ready_future(grpc.insecure_channel("127.0.0.1:1")).result(timeout=0.3)
print(subprocess.run([sys.executable, "-c", ""], preexec_fn=lambda: None).returncode)
os._exit(0)
"""
    environment = {**os.environ, "GRPC_VERBOSITY": "debug", "GRPC_TRACE": "fork"}
    environment.pop("GRPC_ENABLE_FORK_SUPPORT", None)
    if wanted is not None:
        environment["GRPC_ENABLE_FORK_SUPPORT"] = wanted
    ended = subprocess.run(
        [sys.executable, "-u", "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.stdout.split()[0] == str(wanted)
    if wanted is None:
        assert ended.stdout.split()[1] == "0"
        assert "fork() handlers" not in ended.stderr


@pytest.fixture
def patience() -> None:
    """None: the seconds that production grants are tested here."""


class Exporting(threading.Thread):
    """A thread that never ends, and notes how long it is waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float | None] = []

    def is_alive(self) -> bool:
        return True

    def join(self, timeout: float | None = None) -> None:
        self.waits.append(timeout)
        for thread in threading.enumerate():
            if thread.name == "phasebus collector probe":
                thread.join()


def test_a_collector_that_answers_gets_longer_for_the_last_spans() -> None:
    exporting = Exporting()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        Collector(protocol="http/protobuf", endpoint=f"http://127.0.0.1:{port}/v1/traces").wait_for_flush(exporting)
        Collector(protocol="grpc", endpoint=f"127.0.0.1:{port}").wait_for_flush(exporting)
        assert exporting.waits == [0.8, 1.5 - 0.8, 3.5] * 2
    Collector(protocol="grpc", endpoint=f"127.0.0.1:{port}").wait_for_flush(exporting)
    Collector(protocol="http/protobuf", endpoint="http://127.0.0.1:no-port/").wait_for_flush(exporting)
    assert exporting.waits[6:] == [0.8] * 2


def test_a_collector_behind_a_proxy_counts_as_reached_if_the_proxy_is(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        exporting = Exporting()
        Collector(protocol="http/protobuf", endpoint="http://collector.invalid:4318/v1/traces").wait_for_flush(
            exporting
        )
        assert exporting.waits == [0.8, 1.5 - 0.8, 3.5]


def test_a_file_that_a_variable_names_is_used_if_it_is_readable(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("")
    collector, problems = collector_of(
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://c", "OTEL_EXPORTER_OTLP_CERTIFICATE": str(tmp_path / "ca.pem")}
    )
    assert (collector.certificate, problems) == (str(tmp_path / "ca.pem"), [])
