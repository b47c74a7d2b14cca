from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from queue import SimpleQueue

import pytest

from phasebus import vllm_plugin
from phasebus.initializer.engines.vllm.inside import gates, plugin
from phasebus.initializer.engines.vllm.inside.processes import process_start_step_id
from phasebus.initializer.engines.vllm.inside.reporter import Reporter
from phasebus.initializer.engines.vllm.inside.variables import STEPS_URL
from phasebus.telemetry import StepNotice
from phasebus.telemetry.relay import Relay
from phasebus.telemetry.relay.receiver import Received


@pytest.fixture
def relay() -> Iterator[Relay]:
    relay = Relay()
    relay.start()
    yield relay
    relay.close()


def line(number: int) -> dict[str, object]:
    return {"event": "started", "step": f"{number:016x}", "name": "x", "time_ns": 1, "pid": 2, "process": "Worker_0"}


def test_notices_arrive_in_the_order_they_were_sent(relay: Relay) -> None:
    arrived: SimpleQueue[Received] = SimpleQueue()
    relay.listen(arrived.put)
    reporter = Reporter(relay.notices_url, relay.token)
    for number in range(100):
        reporter.send(line(number))
    reporter.close()
    seen = [arrived.get(timeout=60) for _ in range(100)]
    assert [notice.step for notice in seen if isinstance(notice, StepNotice)] == [f"{n:016x}" for n in range(100)]


def test_reporter_without_a_receiver_does_not_block() -> None:
    reporter = Reporter("http://127.0.0.1:9/v1/steps", "")
    for number in range(20_000):
        reporter.send(line(number))
    reporter.close()


def test_plugin_does_nothing_in_a_process_not_started_under_phasebus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(STEPS_URL, raising=False)
    monkeypatch.setattr(plugin, "start", lambda url: pytest.fail("it started"))
    vllm_plugin.register()


def test_plugin_starts_with_the_url_of_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    monkeypatch.setenv(STEPS_URL, "http://127.0.0.1:9/v1/steps")
    monkeypatch.setattr(plugin, "start", started.append)
    vllm_plugin.register()
    assert started == ["http://127.0.0.1:9/v1/steps"]


def test_plugin_that_fails_is_logged_and_does_not_raise(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(url: str) -> None:
        raise ValueError("broken")

    monkeypatch.setenv(STEPS_URL, "http://127.0.0.1:9/v1/steps")
    monkeypatch.setattr(plugin, "start", fail)
    vllm_plugin.register()
    assert "cannot report the steps of this process" in caplog.text


def test_unused_plugin_loads_no_module_but_its_own() -> None:
    """vLLM loads it in each of its processes, wherever phasebus is installed."""
    script = (
        "import os, sys\n"
        "before = set(sys.modules)\n"
        "from phasebus.vllm_plugin import register\n"
        "register()\n"
        "sys.exit(str(sorted(set(sys.modules) - before)))\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != STEPS_URL}
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60, env=environment
    )
    assert ended.stderr.strip() == "['phasebus', 'phasebus.vllm_plugin']"


def test_plugin_imports_no_other_room_of_phasebus() -> None:
    """What it imports, every process of a watched vLLM imports: the rooms take half a second of each."""
    script = (
        "import sys\n"
        "import phasebus.initializer.engines.vllm.inside.plugin\n"
        "ours = {'.'.join(name.split('.')[:3]) for name in sys.modules if name.startswith('phasebus.')}\n"
        "sys.exit(str(sorted(ours)))\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert ended.stderr.strip() == str(
        [
            "phasebus.allocator",
            "phasebus.initializer",
            "phasebus.initializer.bytecode",
            "phasebus.initializer.engines",
            "phasebus.initializer.ray",
            "phasebus.lazy",
            "phasebus.stack_dump",
        ]
    )


def test_closed_gate_blocks_until_it_is_opened(relay: Relay) -> None:
    relay.close_gate()
    opened: list[float] = []

    def open_when_asked() -> None:
        opened.append(time.monotonic())
        relay.open_gate()

    timer = threading.Timer(0.3, open_when_asked)
    timer.start()
    gates._wait(relay.gate_url, relay.token)
    assert opened
    timer.join()


def test_gate_that_cannot_be_reached_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    gates._wait("http://127.0.0.1:9/v1/gate", "")
    assert slept == []


def test_parent_and_child_derive_the_same_id_of_a_process_start() -> None:
    assert (
        process_start_step_id(7, "a" * 32) == process_start_step_id(7, "a" * 32) != process_start_step_id(8, "a" * 32)
    )
    assert len(process_start_step_id(7, "a" * 32)) == 16
