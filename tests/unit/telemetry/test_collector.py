from __future__ import annotations

import pytest

from phasebus.telemetry import Collector, CollectorError


def test_nothing_is_exported_where_no_collector_is_named() -> None:
    assert Collector.from_environment({}) is None


@pytest.mark.parametrize("off", [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}])
def test_the_standard_switches_turn_exporting_off(off: dict[str, str]) -> None:
    assert Collector.from_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", **off}) is None


def test_the_base_endpoint_gets_the_path_of_traces_and_the_traces_endpoint_is_taken_as_it_is() -> None:
    base = Collector.from_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318/"})
    own = Collector.from_environment({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/here"})
    assert base is not None
    assert own is not None
    assert base.endpoint == "http://c:4318/v1/traces"
    assert own.endpoint == "http://c:4318/here"


def test_the_variables_of_traces_win_over_the_general_ones() -> None:
    collector = Collector.from_environment(
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc",
            "OTEL_EXPORTER_OTLP_HEADERS": "api-key=secret",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "3",
        }
    )
    assert collector is not None
    assert (collector.protocol, collector.endpoint, collector.timeout) == ("grpc", "http://c:4317", 3.0)
    assert collector.headers == {"api-key": "secret"}
    assert "secret" not in repr(collector)


@pytest.mark.parametrize(
    ("variable", "value"),
    [("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier-pigeon"), ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon")],
)
def test_a_value_that_cannot_be_had_is_named(variable: str, value: str) -> None:
    with pytest.raises(CollectorError, match=f"{variable} is '{value}'"):
        Collector.from_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", variable: value})
