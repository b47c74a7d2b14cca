from __future__ import annotations

from collections.abc import Iterator

import pytest

from phasebus.initializer.engines.vllm.command_line import read_command
from phasebus.initializer.engines.vllm.environment import environment_of_command, environment_of_engine
from phasebus.telemetry import Telemetry

ENDPOINT, PROTOCOL = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    telemetry = Telemetry(port=None, environment={})
    yield telemetry
    telemetry.relay.close()


def test_an_engine_reports_to_the_relay_with_its_token(telemetry: Telemetry) -> None:
    variables = environment_of_engine(telemetry, {})
    assert (variables[ENDPOINT], variables[PROTOCOL]) == (telemetry.relay.url, "http/protobuf")
    assert variables["PHASEBUS_STEPS_URL"] == telemetry.relay.notices_url
    assert telemetry.relay.token not in variables["PHASEBUS_STEPS_URL"]
    assert variables["PHASEBUS_RELAY_TOKEN"] == telemetry.relay.token
    assert "NO_PROXY" not in variables


def test_an_engine_behind_a_proxy_reaches_the_relay_directly(telemetry: Telemetry) -> None:
    variables = environment_of_engine(telemetry, {"https_proxy": "http://proxy:3128", "no_proxy": "x"})
    assert variables["NO_PROXY"] == variables["no_proxy"] == "x,127.0.0.1,localhost,::1"


def test_a_command_is_recorded_whatever_the_sampler_and_waits_only_at_a_gate(telemetry: Telemetry) -> None:
    without = environment_of_command(telemetry, "a" * 16, gate=False)
    assert without["TRACEPARENT"] == f"00-{telemetry.identity.trace}-{'a' * 16}-01"
    assert without["OTEL_TRACES_SAMPLER"] == "parentbased_always_on"
    assert "PHASEBUS_GATE_URL" not in without
    assert environment_of_command(telemetry, "a" * 16, gate=True)["PHASEBUS_GATE_URL"] == telemetry.relay.gate_url


@pytest.mark.parametrize(
    "option", [["--otlp-traces-endpoint", "http://c:4317"], ["--otlp_traces_endpoint=http://c:4317"]]
)
def test_a_command_that_names_an_endpoint_exports_there_with_its_own_protocol(
    telemetry: Telemetry, option: list[str]
) -> None:
    server = read_command(["vllm", "serve", "m", *option])
    assert server is not None
    variables = environment_of_command(telemetry, "a" * 16, gate=False, traces_endpoint=server.traces_endpoint)
    assert variables[ENDPOINT] == "http://c:4317"
    assert PROTOCOL not in variables
    assert "PHASEBUS_STEPS_URL" in variables
    other = read_command(["vllm", "serve", "m"])
    assert other is not None
    assert other.traces_endpoint is None


def test_iterations_are_counted_once_however_often_the_environment_is_made(telemetry: Telemetry) -> None:
    for _ in range(2):
        environment_of_engine(telemetry, {})
    assert len(telemetry.relay._listeners) == 1


@pytest.mark.parametrize(
    ("endpoint", "bypassed"), [("http://collector:4317", True), ("http://other:4317", False), (None, False)]
)
def test_spans_that_the_collector_gets_from_the_engine_are_not_made_again(endpoint: str | None, bypassed: bool) -> None:
    telemetry = Telemetry(port=None, environment={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"})
    environment_of_engine(telemetry, {}, traces_endpoint=endpoint)
    assert telemetry.relay.is_bypassed is bypassed
    telemetry.relay.close()
