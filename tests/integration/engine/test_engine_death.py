"""An engine that dies while it starts: reported within seconds, with the step it died in, and no process left behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.command import Command
from tests.support.otlp import OtlpBackend
from tests.support.waiting import wait_until


@pytest.fixture
def up(tmp_path: Path, tiny_model: str, backend: OtlpBackend) -> Iterator[Command]:
    config = tmp_path / "node.yaml"
    config.write_text(
        f"model: {tiny_model}\n"
        "engine_preload: false\n"  # each process imports by itself, so there is time to end one meanwhile
        "engine_args: {max_model_len: 256, enforce_eager: true}\n"
        "engine_env: {VLLM_CPU_KVCACHE_SPACE: '1'}\n"
        "service: {port: 0}\n"
    )
    command = Command("up", str(config), state=tmp_path, environment={"OTEL_EXPORTER_OTLP_ENDPOINT": backend.http})
    yield command
    command.close()


def test_killed_worker_is_reported_with_its_step_in_error_journal_and_trace(up: Command, backend: OtlpBackend) -> None:
    wait_until(lambda: worker(up), "the worker is there", seconds=400)
    process = worker(up)
    assert process is not None
    process.kill()
    assert up.wait() == 1
    assert "vLLM did not start, in the step start_process (Worker" in up.stderr
    assert "Traceback" not in up.stderr.partition("its last lines")[0]
    assert up.left_behind() == []
    run = up.journal()
    died = [step for step in run.steps if step.outcome == "died"]
    assert "start_process" in {step.name for step in died}
    killed = "was ended by SIGKILL, as the kernel does when memory runs out"
    assert f"Worker (process {process.pid}) {killed}" in up.stderr
    assert f"its process {killed}" in {step.error for step in died}
    assert {step.name: step.outcome for step in run.steps if step.kind == "phase"}["engine_init"] == "failed"
    spans = {span.span: span for span in backend.spans_of(run)}
    assert {step.id for step in run.steps} <= set(spans)
    assert all(spans[step.id].error is not None for step in died)


def worker(command: Command) -> psutil.Process | None:
    """Return the process that the journal says is the worker, once it is there."""
    assert not command.ended, command.stderr
    command.look()
    if "/metrics" not in command.stderr:
        return None
    for step in command.journal().steps:
        if step.name == "start_process" and step.attributes.get("process") == "Worker":
            return psutil.Process(step.attributes["pid"])
    return None
