"""Values of the exporter's variables that OpenTelemetry's exporters raise for, or misread."""

from __future__ import annotations

import pytest

from phasebus.telemetry import Collector
from phasebus.telemetry.otel import MetricSettings
from phasebus.telemetry.otel.findings import Findings

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
GRPC = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}


def collector_of(**environment: str) -> tuple[Collector | None, list[str]]:
    findings = Findings()
    return Collector.from_environment(environment, findings=findings), findings.problems


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://[localhost]:4317",
        "http://[::1",
        "http://::1:4318",
        "http://c:port",
        "http://c:99999",
        "http://",
        "http://:4318",
        "https://\u2100.com",
    ],
)
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_endpoint_that_cannot_be_parsed_is_one_warning_and_no_collector(endpoint: str, protocol: str) -> None:
    collector, problems = collector_of(**{ENDPOINT: endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol})
    assert collector is None
    assert len(problems) == 1
    assert problems[0].startswith(f"{ENDPOINT} is")


def test_rejected_endpoint_is_reported_with_the_variable_that_names_it() -> None:
    variable = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"
    environment = {"OTEL_METRICS_EXPORTER": "otlp", variable: "http://[c]:4318", ENDPOINT: "http://c:4318"}
    findings = Findings()
    settings = MetricSettings.from_environment(environment, findings)
    assert Collector.from_environment(environment, settings, findings) is None
    assert [problem.split()[0] for problem in findings.problems] == [variable]


@pytest.mark.parametrize(
    "endpoint", ["c:4317", "[::1]:4317", "unix:///tmp/c.sock", "dns:///c:4317", "http://[::1]:4317"]
)
def test_grpc_endpoint_may_have_any_scheme_or_none(endpoint: str) -> None:
    collector, problems = collector_of(**GRPC, **{ENDPOINT: endpoint})
    assert collector is not None
    assert collector.endpoint == endpoint
    assert problems == []


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("http://c:4318/otlp?tenant=a&b=c", "http://c:4318/otlp/v1/traces?tenant=a&b=c"),
        ("http://c:4318?tenant=a", "http://c:4318/v1/traces?tenant=a"),
        ("http://c:4318/#top", "http://c:4318/v1/traces"),
    ],
)
def test_path_of_a_signal_is_appended_before_the_query(endpoint: str, url: str) -> None:
    collector, problems = collector_of(**{ENDPOINT: endpoint})
    assert collector is not None
    assert (collector.endpoint, problems) == (url, [])


@pytest.mark.parametrize(
    ("endpoint", "insecure", "expected"),
    [
        ("http://c:4317", "", True),
        ("http://c:4317", "false", True),
        ("https://c:4317", "true", False),
        ("c:4317", "TRUE", True),
        ("c:4317", "", False),
    ],
)
def test_scheme_of_a_grpc_endpoint_has_precedence_over_insecure(endpoint: str, insecure: str, expected: bool) -> None:
    collector, _ = collector_of(**GRPC, **{ENDPOINT: endpoint, "OTEL_EXPORTER_OTLP_INSECURE": insecure})
    assert collector is not None
    assert collector.insecure is expected


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "10s"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", ""),
        ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "/missing.pem"),
        ("OTEL_EXPORTER_OTLP_HEADERS", '{"authorization": "Bearer hunter2"}'),
    ],
)
def test_exporter_does_not_read_a_rejected_or_empty_variable_again(
    protocol: str, variable: str, value: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    environment = {ENDPOINT: "https://127.0.0.1:9", "OTEL_EXPORTER_OTLP_PROTOCOL": protocol, variable: value}
    for name, each in environment.items():
        monkeypatch.setenv(name, each)
    collector, problems = collector_of(**environment)
    assert collector is not None
    collector.exporter().shutdown()
    assert len(problems) == (value != "")
    assert [record.getMessage() for record in caplog.records] == []
