"""What remains of a failed start: its metrics for a while, and the reason for Kubernetes."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.command import Command
from tests.support.programs import free_port
from tests.support.waiting import wait_until

Start = Callable[..., Command]

LONG = "--linger=600"
"""Longer than any test: only a signal ends it."""


@pytest.fixture
def message(tmp_path: Path) -> Path:
    """The empty file that the kubelet provides for a container's termination message."""
    path = tmp_path / "termination-log"
    path.touch()
    return path


@pytest.fixture
def start(tmp_path: Path, message: Path) -> Iterator[Start]:
    started: list[Command] = []

    def begin(*arguments: str, **environment: str) -> Command:
        variables = {"PHASEBUS_TERMINATION_LOG": str(message), **environment}
        started.append(Command(*arguments, state=tmp_path / "state", environment=variables))
        return started[-1]

    yield begin
    for command in started:
        command.close()


@pytest.fixture
def broken(tmp_path: Path, model: Path) -> Callable[..., str]:
    """The configuration of a node, or of a cluster, with a callback that raises."""

    def write(callbacks: str = "callbacks", **fields: object) -> str:
        (tmp_path / "mine.py").write_text("def broken(phase, config, data):\n    raise ValueError('no licence')\n")
        config = tmp_path / "node.yaml"
        lines = [f"{name}: {value}" for name, value in fields.items()]
        config.write_text("\n".join([f"model: {model}", "engine: none", f"{callbacks}: ['mine:broken']", *lines]))
        return str(config)

    return write


def lingers(command: Command) -> None:
    wait_until(lambda: "metrics stay up for 600 s" in command.stderr or command.ended, "the metrics linger")
    assert not command.ended, command.stderr


def test_a_failed_node_serves_its_reason_until_a_signal_and_exits_with_1(
    start: Start, broken: Callable[..., str], message: Path
) -> None:
    command = start("up", broken(), LONG, "--port=0")
    lingers(command)
    answer = command.get("/readyz")
    assert answer.status_code == 503
    assert (answer.json()["status"], "no licence" in answer.json()["error"]) == ("failed", True)
    metrics = command.get("/metrics").text
    (count,) = (
        line for line in metrics.splitlines() if re.match(r'phasebus_node_startups_total.*outcome="failed"', line)
    )
    assert count.endswith(" 1.0")
    (reason,) = (line for line in metrics.splitlines() if line.startswith("phasebus_node_startup_failure_info{"))
    assert ('phase="pre_initialization"' in reason, 'error="ValueError"' in reason) == (True, True)
    (node,) = (step for step in command.get("/timeline").json()["steps"] if step["kind"] == "node")
    assert "no licence" in node["error"]
    (written,) = message.read_text().splitlines() or [""]
    assert written.startswith(
        "ValueError: no licence; raised by the callback 'broken' during phase 'pre_initialization'"
    )
    command.send(signal.SIGTERM)
    assert command.wait() == 1
    assert command.stderr.count("phasebus: ValueError: no licence") == 1
    assert command.journal().state == "closed"


def test_a_failed_cluster_serves_its_reason_where_its_hub_would(start: Start, broken: Callable[..., str]) -> None:
    command = start("up", broken("driver_callbacks", nodes=2), LONG, f"--port={free_port()}")
    lingers(command)
    answer = command.get("/readyz")
    assert (answer.status_code, "no licence" in answer.json()["error"]) == (503, True)
    command.send(signal.SIGINT)
    assert command.wait() == 1


def test_the_configured_time_ends_the_lingering(start: Start, broken: Callable[..., str]) -> None:
    command = start("up", broken(service="{port: 0, linger_seconds: 0.2}"))
    assert command.wait() == 1
    assert "metrics stay up for 0.2 s" in command.stderr


def test_a_node_started_once_does_not_linger_by_default(start: Start, broken: Callable[..., str]) -> None:
    config = broken(service="{port: 0, host: 0.0.0.0}")
    assert start("up", config, "--once", KUBERNETES_SERVICE_HOST="10.0.0.1").wait() == 1


def test_a_failed_command_lingers_and_ends_with_its_own_code(start: Start, message: Path) -> None:
    command = start("run", LONG, "--port=0", "-v", "sh", "-c", "exit 3")
    lingers(command)
    answer = command.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (503, "failed")
    reason = "`sh -c 'exit 3'` ended with exit code 3 before its engine answered"
    assert answer.json()["error"].startswith(reason)
    assert message.read_text().startswith(reason)
    command.send(signal.SIGTERM)
    assert command.wait() == 3


def test_a_failed_command_ends_with_its_own_code_after_lingering(start: Start) -> None:
    assert start("run", "--linger=0.2", "--port=0", "sh", "-c", "exit 3").wait() == 3


def test_a_command_that_succeeds_without_an_engine_does_not_linger(start: Start, message: Path) -> None:
    assert start("run", LONG, "--port=0", "true").wait() == 0
    assert message.read_text() == ""


def test_a_command_that_a_signal_stops_does_not_linger(start: Start) -> None:
    command = start("run", LONG, "--port=0", "-v", "sleep", "1000")
    command.wait_for("engine_step", "start_process")
    command.send(signal.SIGTERM)
    assert command.wait() == -signal.SIGTERM


def test_a_failed_download_lingers_and_ends_with_1(start: Start) -> None:
    command = start("run", "--linger=0.2", "--port=0", "--download=/not/there", "--", "sleep", "1000")
    assert command.wait() == 1
    assert "metrics stay up for 0.2 s" in command.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (("up", "/not/there.yaml"), 1, "the configuration /not/there.yaml cannot be read"),
        (("run", "not-a-command"), 127, "cannot execute 'not-a-command'"),
    ],
)
def test_a_start_that_cannot_begin_has_a_termination_message(
    start: Start, message: Path, arguments: tuple[str, ...], code: int, reason: str
) -> None:
    assert start(*arguments).wait() == code
    assert message.read_text().startswith(reason)
