"""A process of a node's engine that is killed while the engine starts, with a real vLLM."""

from __future__ import annotations

import time
from pathlib import Path

import anyio
import anyio.to_thread
import psutil
import pytest

from phasebus.initializer import ClusterConfig, EngineError, LLMConfig, initialize_cluster
from phasebus.initializer.tiny_model import tiny_model_path, write_tiny_model
from phasebus.telemetry.journal import find_journal, read_journal
from tests.support.otlp import OtlpBackend
from tests.support.two_nodes import TwoNodes
from tests.support.waiting import wait_until

pytest.importorskip("vllm")

pytestmark = pytest.mark.anyio

_NOTICED_SECONDS = 10.0


def running_engine_cores() -> list[psutil.Process]:
    """The engine cores that run on this machine, by the name vLLM gives them."""
    return [each for each in psutil.process_iter(["cmdline"]) if "EngineCore" in " ".join(each.info["cmdline"] or ())]


async def test_an_engine_core_that_is_killed_fails_the_cluster_and_closes_every_step(
    nodes: TwoNodes, tmp_path: Path, backend: OtlpBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", backend.http)
    model = str(write_tiny_model(tiny_model_path()))
    args = {"max_model_len": 256, "enforce_eager": True, "dtype": "bfloat16"}
    whole = ClusterConfig(
        models=[
            LLMConfig(name="chat", model=model, engine_args=args, engine_env={"VLLM_CPU_KVCACHE_SPACE": "1"}),
            LLMConfig(name="store", model=model, engine="none"),
        ],
        ray={"address": nodes.address},  # type: ignore[arg-type]
        service={"port": None},  # type: ignore[arg-type]
    )
    before = {process.pid for process in running_engine_cores()}
    failed: list[EngineError] = []

    def own_engine_cores() -> list[psutil.Process]:
        return [process for process in running_engine_cores() if process.pid not in before and of(process, tmp_path)]

    async def start() -> None:
        try:
            await initialize_cluster(whole)
        except EngineError as error:
            failed.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(start)
        await anyio.to_thread.run_sync(
            wait_until, lambda: len(own_engine_cores()) > 0, "the engine core has started", 300
        )
        for process in own_engine_cores():
            process.kill()
        killed = time.monotonic()
    assert time.monotonic() - killed < _NOTICED_SECONDS
    assert any(note.startswith("on the node 'chat-0'") for note in failed[0].__notes__)
    run = read_journal(find_journal())
    outcomes = {step.name: step.outcome for step in run.steps if step.kind == "phase" and step.node == "chat-0"}
    assert outcomes["engine_init"] == "failed"
    assert "running" not in {step.outcome for step in run.steps}
    wait_until(
        lambda: {step.id for step in run.steps} <= {span.span for span in backend.spans(run.trace)}, "the spans arrived"
    )
    nodes.wait_until_free()


def of(process: psutil.Process, folder: Path) -> bool:
    """Return whether a process belongs to the start whose state is in `folder`: others may run on this machine."""
    try:
        return any(str(folder) in file.path for file in process.open_files())
    except psutil.Error:
        return False
