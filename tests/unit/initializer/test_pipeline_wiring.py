from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from phasebus.bus import Bus, StepStarted
from phasebus.initializer.cli.start import _reachable
from phasebus.initializer.node.config import ServiceConfig
from phasebus.initializer.pipeline import wiring
from phasebus.initializer.pipeline.wiring import available_telemetry, observe_all
from phasebus.observers import Watchdog
from phasebus.telemetry import Telemetry
from phasebus.telemetry.journal import read_journal
from phasebus.telemetry.stuck import StuckStep, StuckSteps
from tests.support.waiting import wait_until


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])


def close(telemetry: Telemetry) -> None:
    for part in (telemetry.service, telemetry.relay):
        if part is not None:
            part.close()


def test_a_taken_port_is_replaced_by_the_next_free_one_with_a_warning(taken: int) -> None:
    warnings: list[str] = []
    telemetry = available_telemetry(port=taken, warn=warnings.append)
    assert telemetry.service is not None
    assert telemetry.service.port != taken
    assert warnings == [
        f"port {taken} on 127.0.0.1 is taken; metrics and the page are on port {telemetry.service.port}"
    ]
    close(telemetry)


def test_a_taken_port_of_a_cluster_is_replaced_too(taken: int, capsys: pytest.CaptureFixture[str]) -> None:
    port = _reachable(ServiceConfig(port=taken)).port
    assert port not in (taken, None)
    assert f"port {taken} on 127.0.0.1 is taken" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1"])
def test_an_address_that_is_not_available_leaves_the_service_out(host: str) -> None:
    warnings: list[str] = []
    telemetry = available_telemetry(host=host, port=0, warn=warnings.append)
    assert telemetry.service is None
    (warning,) = warnings
    assert host in warning
    assert warning.endswith("/metrics and the page are left out")
    close(telemetry)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1"])
def test_a_relay_address_that_is_not_available_is_replaced_by_loopback(host: str) -> None:
    """Of a node behind a translated address, Ray knows one that is not the machine's own."""
    warnings: list[str] = []
    telemetry = available_telemetry(port=None, relay_host=host, warn=warnings.append)
    assert telemetry.relay.host == "127.0.0.1"
    (warning,) = warnings
    assert host in warning
    close(telemetry)


def test_a_variable_that_fails_the_telemetry_leaves_the_export_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SOMETHING", "wrong")

    def fails(*arguments: Any, **options: Any) -> Telemetry:
        if "OTEL_SOMETHING" in os.environ:
            raise ValueError("OTEL_SOMETHING is wrong")
        return Telemetry(*arguments, **options)

    monkeypatch.setattr(wiring, "Telemetry", fails)
    warnings: list[str] = []
    telemetry = available_telemetry(port=None, warn=warnings.append)
    assert warnings == ["spans are not exported: OTEL_SOMETHING is wrong"]
    assert os.environ["OTEL_SOMETHING"] == "wrong"  # it is still there for the engine
    close(telemetry)


@pytest.mark.anyio
async def test_an_observer_that_cannot_be_made_is_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: Any) -> None:
        raise ValueError("no spans today")

    monkeypatch.setattr(wiring, "SpanObserver", fails)
    async with Telemetry(port=None) as telemetry, Bus() as bus:
        observe_all(bus, telemetry)
        observers = [stats.name for stats in bus.stats()]
    assert "JournalObserver" in observers
    assert caplog.messages == ["the observer for spans is left out: no spans today"]


@pytest.mark.anyio
async def test_stuck_steps_reach_the_page_the_probe_the_metrics_and_the_journal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[dict[str, Any]] = []

    def watchdog(**options: Any) -> Watchdog:
        made.append(options)
        return Watchdog(**options)

    monkeypatch.setattr(wiring, "Watchdog", watchdog)
    step = StuckStep(step="a" * 16, name="load weights", process="Worker", pid=7, running_seconds=9, reason="r")
    async with Telemetry(port=None) as telemetry, Bus() as bus:
        journal = observe_all(bus, telemetry)
        await bus.publish(StepStarted(step=step.step, kind="engine_step", name="load_weights"))
        exported, labels = telemetry.metrics.registry.get_sample_value, {"step": "load_weights"}
        wait_until(lambda: exported("phasebus_engine_step_in_progress", labels), "the step is counted")
        for report in made[0]["report"]:
            report(StuckSteps(steps=(step,)))
        assert exported("phasebus_stuck_steps", {"kind": "engine_step", **labels}) == 1
        assert telemetry.timeline.state()["stuck"] == [step.plain()]
        assert telemetry.status.describe()["stuck"] == [step.headline()]
    assert [each.steps for each in read_journal(journal).stuck] == [(step,)]
    assert made[0]["logs"] == (journal.with_suffix(".engine.log"),)
