"""A process of a node's engine that is killed, with a real vLLM.

While the engine starts: see `test_engine_death` for a node, and `test_cluster_start` for the cluster of a node that fails.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import psutil
import pytest

from phasebus.initializer import ClusterConfig, LLMConfig, initialize_cluster
from phasebus.initializer.cli.demo_model import tiny_model_path, write_tiny_model
from phasebus.initializer.engines.vllm.inside.forkserver.kept import client
from phasebus.initializer.engines.vllm.inside.forkserver.kept.address import Address
from phasebus.telemetry.journal import find_journal, read_journal
from tests.support.cluster_hub import Hub
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


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Address]:
    """The address of a fork server that stays until the end of the test."""
    address = Address(tmp_path / "runtime")
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


def config(nodes: TwoNodes, port: int | None, runtime: Path) -> ClusterConfig:
    """A node whose engine is forked from a server that stays, which has its socket in the folder `runtime`, and another one."""
    model = str(write_tiny_model(tiny_model_path()))
    args = {"max_model_len": 256, "enforce_eager": True, "dtype": "bfloat16"}
    return ClusterConfig(
        models=[
            LLMConfig(
                name="chat",
                model=model,
                engine_args=args,
                engine_env={"VLLM_CPU_KVCACHE_SPACE": "1"},
                runtime_env={"env_vars": {"PHASEBUS_RUNTIME_DIR": str(runtime)}},
                forkserver="keep",
            ),
            LLMConfig(name="store", model=model, engine="none"),
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
    assert (status(kept)["pid"], status(kept)["forks"]) == (server["pid"], 1)  # the server stays
