"""The end of a real start-up that fails: one message, an exit code, no process left, and a complete journal."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from phasebus.initializer.cli.demo_model import tiny_model_path, write_tiny_model
from tests.support.command import Command, phases
from tests.support.otlp import OtlpBackend
from tests.support.waiting import wait_until

Up = Callable[..., Command]


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    """Start `phasebus up` with a configuration, against the tiny model."""
    started: list[Command] = []

    def start(engine_args: str = "", environment: dict[str, str] | None = None) -> Command:
        config = tmp_path / "node.yaml"
        config.write_text(
            f"model: {write_tiny_model(tiny_model_path())}\n"
            f"engine_args: {{max_model_len: 256, enforce_eager: true, {engine_args}}}\n"
            "engine_env: {VLLM_CPU_KVCACHE_SPACE: '1'}\n"
            "service: {port: 0}\n"
        )
        started.append(Command("up", str(config), state=tmp_path, environment=environment))
        return started[-1]

    yield start
    for command in started:
        command.close()


def test_ctrl_c_in_the_middle_of_the_engines_start_gives_everything_back(up: Up, backend: OtlpBackend) -> None:
    command = up(
        environment={"OTEL_EXPORTER_OTLP_ENDPOINT": backend.grpc, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
    )
    command.wait_for("engine", "vllm")
    wait_until(lambda: engine_output(command), "the engine has begun to load")
    command.send(signal.SIGINT)
    assert command.wait() == 130
    assert "phasebus: ended by SIGINT; nothing of the start-up is left running" in command.stderr
    assert "Traceback" not in command.stderr
    assert command.left_behind() == []
    run = command.journal()
    assert run.state == "closed"
    assert phases(run)["engine_init"] == "cancelled"
    failed = [span for span in backend.spans_of(run) if span.error is not None]
    assert {span.name for span in failed if span.attributes["phasebus.kind"] != "engine_step"} == {
        "node init",
        "phase engine_init",
        "engine init",
    }


def engine_output(command: Command) -> bool:
    command.look()
    return command.journal().path.with_suffix(".engine.log").exists()


def test_an_engine_argument_that_vllm_does_not_know_is_named_with_the_nearest(up: Up) -> None:
    command = up("max_num_seq: 4")
    assert command.wait() == 1
    assert "phasebus: vLLM has no engine argument 'max_num_seq'; did you mean 'max_num_seqs'?" in command.stderr
    assert "in the phase 'pre_initialization'" in command.stderr
    assert "Traceback" not in command.stderr
    assert command.left_behind() == []
    assert phases(command.journal()) == {"pre_initialization": "failed"}
