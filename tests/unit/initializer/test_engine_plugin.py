from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from queue import SimpleQueue

import pytest

from phasebus.initializer.engines.vllm.inside import gates, plugin
from phasebus.initializer.engines.vllm.inside.processes import process_start_step_id
from phasebus.initializer.engines.vllm.inside.reporter import Reporter
from phasebus.telemetry import StepNotice
from phasebus.telemetry.relay import Forwarder, Relay
from phasebus.telemetry.relay.receiver import Told


@pytest.fixture
def relay() -> Iterator[Relay]:
    relay = Relay(Forwarder(None))
    relay.start()
    yield relay
    relay.close()


def line(number: int) -> dict[str, object]:
    return {"event": "started", "step": f"{number:016x}", "name": "x", "time_ns": 1, "pid": 2, "process": "Worker_0"}


def test_notices_arrive_in_the_order_they_were_sent(relay: Relay) -> None:
    told: SimpleQueue[Told] = SimpleQueue()
    relay.listen(told.put)
    reporter = Reporter(relay.notices_url)
    for number in range(100):
        reporter.send(line(number))
    reporter.close()
    seen = [told.get(timeout=60) for _ in range(100)]
    assert [notice.step for notice in seen if isinstance(notice, StepNotice)] == [f"{n:016x}" for n in range(100)]


def test_a_reporter_with_nobody_listening_holds_nobody_up() -> None:
    reporter = Reporter("http://127.0.0.1:9/v1/steps")
    for number in range(20_000):
        reporter.send(line(number))
    reporter.close()


def test_the_plugin_does_nothing_in_a_process_that_was_not_started_under_phasebus(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(plugin.STEPS_URL, raising=False)
    monkeypatch.setattr(plugin, "_begin", lambda url: pytest.fail("it began"))
    plugin.register()


def test_a_plugin_that_fails_says_so_and_lets_the_engine_go_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(url: str) -> None:
        raise ValueError("broken")

    monkeypatch.setenv(plugin.STEPS_URL, "http://127.0.0.1:9/v1/steps")
    monkeypatch.setattr(plugin, "_begin", fail)
    plugin.register()
    assert "will not be told" in caplog.text


def test_a_closed_gate_holds_until_it_is_opened(relay: Relay) -> None:
    relay.close_gate()
    opened: list[float] = []

    def open_when_asked() -> None:
        opened.append(time.monotonic())
        relay.open_gate()

    timer = threading.Timer(0.3, open_when_asked)
    timer.start()
    gates._wait(relay.gate_url)
    assert opened
    timer.join()


def test_a_gate_that_is_not_there_holds_nobody() -> None:
    gates._wait("http://127.0.0.1:9/v1/gate")


def test_parent_and_child_know_a_birth_by_the_same_id() -> None:
    assert (
        process_start_step_id(7, "a" * 32) == process_start_step_id(7, "a" * 32) != process_start_step_id(8, "a" * 32)
    )
    assert len(process_start_step_id(7, "a" * 32)) == 16
