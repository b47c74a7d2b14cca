from __future__ import annotations

import socket
import threading

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


@pytest.fixture
def patience() -> None:
    """None: the seconds that production grants are what is looked at here."""


class Sending(threading.Thread):
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


def test_a_collector_that_is_there_is_given_longer_for_the_last_than_one_that_is_away() -> None:
    sending = Sending()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        Collector(protocol="http/protobuf", endpoint=f"http://127.0.0.1:{port}/v1/traces").wait_for_flush(sending)
        Collector(protocol="grpc", endpoint=f"127.0.0.1:{port}").wait_for_flush(sending)
        assert sending.waits == [1.5, 3.5] * 2
    Collector(protocol="grpc", endpoint=f"127.0.0.1:{port}").wait_for_flush(sending)
    Collector(protocol="http/protobuf", endpoint="http://127.0.0.1:no-port/").wait_for_flush(sending)
    assert sending.waits[4:] == [1.5] * 2
