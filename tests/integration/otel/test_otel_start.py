"""Starts of processes of their own, with OpenTelemetry's variables as operators set them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.otel.conftest import Start
from tests.support.command import phases
from tests.support.otlp import Authority, OtlpSink, otlp_sink
from tests.support.programs import free_port
from tests.support.traces import ExportedSpan, assert_is_one_trace, exported_spans

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def sink() -> Iterator[OtlpSink]:
    with otlp_sink() as sink:
        yield sink
        traces: dict[bytes, list[ExportedSpan]] = {}
        for each in exported_spans(export.content for export in sink.exports):
            traces.setdefault(each.span.trace_id, []).append(each)
        for trace, spans in traces.items():
            assert_is_one_trace(spans, caller=PARENT if trace.hex() == TRACE else "")


def test_otel_trace_of_a_sampled_caller_is_exported_whole(up: Start, sink: OtlpSink) -> None:
    command = up(OTEL_EXPORTER_OTLP_ENDPOINT=sink.url, TRACEPARENT=f"00-{TRACE}-{PARENT}-01")
    assert {span.trace_id.hex() for span in sink.spans} == {TRACE}
    assert {span.span_id.hex() for span in sink.spans} == {step.id for step in command.journal().steps}


@pytest.mark.parametrize(
    "variables",
    [
        {"TRACEPARENT": f"00-{TRACE}-{PARENT}-00"},
        {"OTEL_TRACES_SAMPLER": "always_off"},
        {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"},
        {"OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_SDK_DISABLED": "true"},
    ],
)
def test_otel_trace_that_is_not_sampled_costs_the_journal_nothing(
    up: Start, sink: OtlpSink, variables: dict[str, str]
) -> None:
    command = up(OTEL_EXPORTER_OTLP_ENDPOINT=sink.url, **variables)
    assert sink.spans == []
    assert set(phases(command.journal()).values()) == {"finished"}


@pytest.mark.parametrize(
    "variables", [{}, {"TRACEPARENT": f"00-{TRACE}-{PARENT}-00"}, {"OTEL_TRACES_SAMPLER": "always_off"}]
)
def test_otel_engine_is_recorded_whether_its_trace_is_exported_or_not(
    run: Start, sink: OtlpSink, variables: dict[str, str]
) -> None:
    command = run(OTEL_EXPORTER_OTLP_ENDPOINT=sink.url, **variables)
    assert "load_weights" in {step.name for step in command.journal().steps if step.kind == "engine_step"}
    exported = {span.name for span in sink.spans}
    assert exported == set() if variables else {"load weights", "engine init"} <= exported


def test_otel_engine_has_the_service_of_the_run_and_an_instance_of_its_own(run: Start, sink: OtlpSink) -> None:
    run(
        OTEL_EXPORTER_OTLP_ENDPOINT=sink.url,
        OTEL_SERVICE_NAME="gateway",
        OTEL_RESOURCE_ATTRIBUTES="team=x",
        POD_NAME="p",
    )
    resources = {span.name: resource for span, resource in zip(sink.spans, sink.resources, strict=True)}
    ours, engine = resources["engine init"], resources["load weights"]
    for name in ("service.name", "team", "host.name", "k8s.pod.name", "phasebus.run"):
        assert ours[name] == engine[name]
    assert (engine["service.name"], engine["k8s.pod.name"]) == ("gateway", "p")
    assert ours["service.instance.id"] != engine["service.instance.id"]
    assert ours["process.pid"] != engine["process.pid"]


def test_otel_variables_that_the_sdk_rejects_are_one_warning_each(run: Start, up: Start, sink: OtlpSink) -> None:
    wrong = {
        "OTEL_BSP_MAX_QUEUE_SIZE": "9",
        "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "-1",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "carrier-pigeon",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "zip",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "soon",
        "OTEL_TRACES_SAMPLER": "sometimes",
    }
    for start in (up, run):
        command = start(OTEL_EXPORTER_OTLP_ENDPOINT=sink.url, **wrong)
        for name in wrong:
            assert command.stderr.count(f"{name} is ") == 1
    assert {"node init", "load weights"} <= {span.name for span in sink.spans}


def test_otel_engine_reaches_the_relay_past_a_proxy_that_is_away(run: Start, sink: OtlpSink) -> None:
    proxy = dict.fromkeys(("HTTP_PROXY", "http_proxy", "HTTPS_PROXY"), "http://127.0.0.1:9")
    command = run(OTEL_EXPORTER_OTLP_ENDPOINT=sink.url, **proxy, NO_PROXY=".corp.example")
    assert "load_weights" in {step.name for step in command.journal().steps}
    assert {"load weights", "engine init"} <= {span.name for span in sink.spans}


def test_otel_engine_spans_use_the_certificates_and_the_compression_too(run: Start, tmp_path: Path) -> None:
    authority = Authority.made_in(tmp_path)
    with otlp_sink(authority.server_context(mutual=True)) as sink:
        run(
            OTEL_EXPORTER_OTLP_ENDPOINT=sink.url,
            OTEL_EXPORTER_OTLP_CERTIFICATE=str(authority.certificate),
            OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE=str(authority.client_certificate),
            OTEL_EXPORTER_OTLP_CLIENT_KEY=str(authority.client_key),
            OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
            OTEL_EXPORTER_OTLP_HEADERS="api-key=k",
        )
        assert {"load weights", "engine init"} <= {span.name for span in sink.spans}
        assert {(each.headers["content-encoding"], each.headers["api-key"]) for each in sink.exports} == {("gzip", "k")}


def test_otel_console_exporter_prints_the_spans(up: Start, sink: OtlpSink) -> None:
    command = up(OTEL_TRACES_EXPORTER="console", OTEL_EXPORTER_OTLP_ENDPOINT=sink.url)
    assert '"name": "node init"' in command.stdout
    assert sink.spans == []


def test_otel_spans_survive_a_collector_that_refuses_for_a_while(run: Start) -> None:
    with otlp_sink(status=400) as sink:  # a status after which the SDK itself gives up
        sink.accept_after(2)
        run(OTEL_EXPORTER_OTLP_ENDPOINT=sink.url, ENGINE_SECONDS="4")
        assert {"load weights", "engine init", "node init"} <= {span.name for span in sink.spans}
        assert len({span.span_id for span in sink.spans}) == len(sink.spans)


def test_otel_disabled_leaves_the_engine_untraced_and_the_start_as_it_is(run: Start, sink: OtlpSink) -> None:
    command = run(OTEL_EXPORTER_OTLP_ENDPOINT=sink.url, OTEL_SDK_DISABLED="true")
    assert sink.spans == []
    assert set(phases(command.journal()).values()) == {"finished"}
    assert "load_weights" not in {step.name for step in command.journal().steps}


def test_otel_metrics_of_a_start_that_is_never_scraped_are_pushed(up: Start, sink: OtlpSink) -> None:
    up(OTEL_METRICS_EXPORTER="otlp", OTEL_EXPORTER_OTLP_ENDPOINT=sink.url)
    last = sink.pushes[-1].metrics
    finished = {
        point.as_double
        for point in last["phasebus_node_startups"].sum.data_points
        if any(label.value.string_value == "finished" for label in point.attributes)
    }
    assert finished == {1}
    (ready,) = last["phasebus_ready"].gauge.data_points
    assert ready.as_double == 1


def test_otel_collector_of_metrics_that_is_away_costs_one_warning(up: Start) -> None:
    command = up(OTEL_METRICS_EXPORTER="otlp", OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=f"http://127.0.0.1:{free_port()}")
    assert command.stderr.count("metrics cannot be pushed") <= 1
    assert set(phases(command.journal()).values()) == {"finished"}
