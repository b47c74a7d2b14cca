from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext

from phasebus.telemetry import Collector, RunIdentity, Tracing
from phasebus.telemetry.exporters import span_queues
from phasebus.telemetry.otel import SpanQueue, TraceSettings
from phasebus.telemetry.otel.findings import Findings
from tests.support.otlp import otlp_sink

SPAN = ReadableSpan("Load weights", SpanContext(1, 1, False), start_time=1, end_time=2)


def queues_of(environment: Mapping[str, str]) -> tuple[tuple[SpanQueue, ...], Findings]:
    findings = Findings()
    settings = TraceSettings.from_environment(environment, findings)
    return span_queues(settings, Collector.from_environment(environment, settings, findings), findings), findings


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"},
        {"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "console,otlp"},
    ],
)
def test_nothing_is_exported_unless_it_is_asked_for(environment: dict[str, str]) -> None:
    assert queues_of(environment) == ((), Findings())


def test_the_console_exporter_prints_spans(capsys: pytest.CaptureFixture[str]) -> None:
    (queue,), _ = queues_of({"OTEL_TRACES_EXPORTER": "console"})
    queue.put([SPAN])
    assert queue.close()
    assert '"name": "Load weights"' in capsys.readouterr().out


def test_each_exporter_of_a_list_gets_every_span(capsys: pytest.CaptureFixture[str]) -> None:
    with otlp_sink() as sink:
        queues, _ = queues_of({"OTEL_TRACES_EXPORTER": "otlp,console", "OTEL_EXPORTER_OTLP_ENDPOINT": sink.url})
        for queue in queues:
            queue.put([SPAN])
            assert queue.close()
        assert [span.name for span in sink.spans] == ["Load weights"]
    assert "Load weights" in capsys.readouterr().out


def test_an_exporter_of_an_installed_distribution_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with otlp_sink() as sink:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", sink.url)
        assert importlib.metadata.entry_points(group="opentelemetry_traces_exporter", name="otlp_proto_http")
        (queue,), _ = queues_of({"OTEL_TRACES_EXPORTER": "otlp_proto_http"})
        queue.put([SPAN])
        assert queue.close()
        assert len(sink.spans) == 1


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_spans_are_exported_without_the_global_meter_provider(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opentelemetry.metrics._internal._METER_PROVIDER", None)
    monkeypatch.setenv("OTEL_PYTHON_METER_PROVIDER", "nope")
    exporter = InMemorySpanExporter()
    tracing = Tracing(RunIdentity.fresh(environment={}), exporter)
    tracing.start("node init", step="a" * 16, parent=None, time_ns=1, attributes={}).end(2)
    assert tracing.close()
    assert len(exporter.get_finished_spans()) == 1
    collector = {"OTEL_EXPORTER_OTLP_PROTOCOL": protocol, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    (queue,), findings = queues_of(collector)
    assert queue.close()
    assert findings == Findings()


def test_an_exporter_that_is_not_installed_is_one_warning() -> None:
    queues, findings = queues_of({"OTEL_TRACES_EXPORTER": "zipkin"})
    assert queues == ()
    assert len(findings.problems) == 1
    assert "'zipkin': OTEL_TRACES_EXPORTER names an exporter that is not installed" in findings.problems[0]
