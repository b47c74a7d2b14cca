"""A process of a node's engine that is killed, with a real vLLM, whose fork server stays for the next start.

While the engine starts: see `test_engine_death` for a node, and `test_cluster_start` for the cluster of a node that fails.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import psutil
import pytest

from phasebus.initializer import ClusterConfig, LLMConfig, initialize_cluster
from phasebus.initializer.cli.demo_model import tiny_model_path, write_tiny_model
from phasebus.initializer.engines.vllm.inside.forkserver.kept import client
from phasebus.initializer.engines.vllm.inside.forkserver.kept.address import Address
from phasebus.telemetry.journal import find_journal, read_journal
from tests.support.cluster_hub import Hub
from tests.support.command import Command
from tests.support.programs import free_port
from tests.support.two_nodes import TwoNodes
from tests.support.waiting import wait_until

pytest.importorskip("vllm")

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(1200)]  # an engine may take minutes to start, and nodes to go


def engine_processes() -> list[psutil.Process]:
    """The processes that the engine has started: all below its front end, a fork that Ray's actor calls."""
    steps = read_journal(find_journal()).steps
    front_ends = {step.attributes.get("pid") for step in steps if step.attributes.get("process") == "front_end"}
    actors = [psutil.Process(int(pid)) for pid in front_ends if pid]
    return [child for actor in actors for child in actor.children(recursive=True)]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    """The address of a fork server that stays until the end of these tests, or until one of them stops it."""
    address = Address(tmp_path_factory.mktemp("kept") / "runtime")
    yield address
    client.ask(address, "stop")
    address.close()


def status(kept: Address) -> Mapping[str, Any]:
    state = client.ask(kept, "status")
    assert state is not None
    return state


def kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # it goes by itself once its parent has
            process.kill()


def engine_config(runtime: Path) -> dict[str, Any]:
    """A node whose engine is forked from a server that stays, which has its socket in the folder `runtime`."""
    return {
        "model": str(write_tiny_model(tiny_model_path())),
        "engine_args": {"max_model_len": 256, "enforce_eager": True, "dtype": "bfloat16"},
        "engine_env": {"VLLM_CPU_KVCACHE_SPACE": "1"},
        "runtime_env": {"env_vars": {"PHASEBUS_RUNTIME_DIR": str(runtime)}},
        "forkserver": "keep",
    }


def config(nodes: TwoNodes, port: int | None, runtime: Path) -> ClusterConfig:
    """A node with an engine, and another one."""
    engine = engine_config(runtime)
    return ClusterConfig(
        models=[
            LLMConfig(name="chat", **engine),
            LLMConfig(name="store", model=engine["model"], engine="none"),
        ],
        silence_seconds=60,
        ray={"address": nodes.address},  # type: ignore[arg-type]
        service={"port": port},  # type: ignore[arg-type]
    )


async def test_an_engine_core_killed_in_a_ready_cluster_is_reported_by_node_and_hub(
    nodes: TwoNodes, kept: Address
) -> None:
    hub = Hub(free_port())
    async with await initialize_cluster(config(nodes, hub.port, kept.folder)) as cluster:
        ready = {"chat_0": "ready", "store_1": "ready"}
        await anyio.to_thread.run_sync(wait_until, lambda: hub.says(200, **ready), "the hub calls the cluster ready")
        assert cluster.engine is not None
        assert await cluster.engine.generate("A start-up is", max_tokens=2)
        server = status(kept)
        kill(engine_processes())
        dead = {"chat_0": "failed", "store_1": "ready"}
        await anyio.to_thread.run_sync(wait_until, lambda: hub.says(503, **dead), "the hub knows that it is gone")
        state = hub.state()
        (chat,) = (node for node in state["nodes"] if node["name"] == "chat-0")
        assert state["status"] == "degraded"
        assert chat["error"].startswith("the engine has died: ")
        own = Hub(int(chat["metrics"].rpartition(":")[2])).get("/readyz")
        assert (own.status_code, own.json()["error"]) == (503, chat["error"])
        moments = read_journal(find_journal().with_suffix("") / "chat-0.jsonl").moments
        assert moments[-1].phase == "engine_died"
    nodes.wait_until_free()
    await anyio.to_thread.run_sync(wait_until, lambda: status(kept)["commands"] == [], "the front end has ended")
    assert (status(kept)["pid"], status(kept)["forks"]) == (server["pid"], server["forks"])  # the server stays


def test_phasebus_up_forks_its_front_end_from_a_server_that_stays(tmp_path: Path, kept: Address) -> None:
    earlier = client.ask(kept, "status")
    runtime = {"PHASEBUS_RUNTIME_DIR": str(kept.folder)}
    file = tmp_path / "node.yaml"
    file.write_text(json.dumps({**engine_config(kept.folder), "serve": {"port": 0}, "service": {"port": 0}}))
    command = Command("up", str(file), state=tmp_path / "up", environment=runtime)
    try:
        wait_until(lambda: command.ended or "serving  http" in command.stdout, "the node is ready", seconds=400)
        assert not command.ended, command.stderr
        server = status(kept)
        if earlier is not None:
            assert (server["pid"], server["forks"]) == (earlier["pid"], earlier["forks"] + 1)
        front_end = psutil.Process(*server["commands"])
        assert front_end.ppid() == server["pid"]
        engine = [front_end, *front_end.children(recursive=True)]
        assert {"VLLM::Engine", "VLLM::Worker"} <= {process.name()[:12] for process in engine}
        url = command.stdout.partition("serving  ")[2].split()[0]
        model = httpx.get(f"{url}/v1/models", timeout=60).json()["data"][0]["id"]
        request = {"model": model, "prompt": "A start-up is", "max_tokens": 4, "ignore_eos": True}
        answer = httpx.post(f"{url}/v1/completions", json=request, timeout=120)
        assert answer.json()["usage"]["completion_tokens"] == 4
        tokens = 'phasebus_engine_tokens_total{engine="0",type="generation"} 4.0'
        wait_until(lambda: tokens in command.get("/metrics", Accept="text/plain").text, "its tokens are counted")
        command.send(signal.SIGINT)
        assert command.wait() == 0
        assert command.left_behind() == []
        _, left = psutil.wait_procs(engine, timeout=60)
        assert left == []
    finally:
        command.close()
    stop = [sys.executable, "-m", "phasebus.initializer.cli", "forkserver", "stop"]
    stopped = subprocess.run(
        stop, env={**os.environ, **runtime}, capture_output=True, text=True, timeout=120, check=True
    )
    assert stopped.stdout == f"The fork server {server['pid']} ends.\n"
    wait_until(lambda: not psutil.pid_exists(server["pid"]), "the fork server has ended")
