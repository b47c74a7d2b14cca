"""What `initialize_cluster` costs over the bare Ray that does the same."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

import anyio
import ray

from phasebus.initializer import LLMConfig, PreEngineInit, initialize_cluster
from tests.benchmarks.measuring import Number, Table
from tests.support.two_nodes import two_nodes

_ENGINE_SECONDS = 20.0
"""What stands for an engine's start; vLLM takes three times as long on the machine this was written on."""

_ROUNDS = 2


class BareNode:
    """A node without phasebus."""

    def where(self) -> tuple[str, int]:
        """Return the name of the machine and the id of the process."""
        return platform.node(), os.getpid()

    def start(self, model: str) -> bool:
        """Find the model, and start what stands for an engine."""
        found = (Path(model) / "config.json").is_file()
        time.sleep(_ENGINE_SECONDS)
        return found


async def stand_in(event: PreEngineInit) -> None:
    """Take as long as an engine."""
    await anyio.sleep(_ENGINE_SECONDS)


def tables() -> Iterable[Table]:
    """Start two nodes on two raylets, with Ray alone and with phasebus, in turn."""
    times: dict[str, list[float]] = {"bare Ray": [], "phasebus, with the hub": []}
    with two_nodes() as nodes, tempfile.TemporaryDirectory() as folder:
        os.environ["PHASEBUS_STATE_DIR"] = folder
        (Path(folder) / "config.json").write_text("{}")
        for _ in range(_ROUNDS):
            for name, measured in times.items():
                began = time.perf_counter()
                if name == "bare Ray":
                    _bare(nodes.address, folder)
                else:
                    anyio.run(_ours, nodes.address, folder, 0 if "hub" in name else None)
                measured.append(time.perf_counter() - began)
    bare = median(times["bare Ray"])
    table = Table(
        f"Two nodes, connecting and closing included; the engine is a pause of {_ENGINE_SECONDS:g} s",
        ("", "seconds", "over bare Ray"),
        notes=[f"Medians of {_ROUNDS} rounds, in turn."],
    )
    for name, measured in times.items():
        mark = None if name == "bare Ray" else 1.05
        table.rows.append((name, Number(median(measured), " s"), Number(median(measured) / bare, mark=mark)))
    yield table


def _bare(address: str, model: str) -> None:
    from ray.util import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    group = placement_group([{"CPU": 0.01}] * 2, strategy="STRICT_SPREAD")
    group.wait(60)
    actors: list[Any] = [
        ray.remote(BareNode)
        .options(num_cpus=0, scheduling_strategy=PlacementGroupSchedulingStrategy(group, index))
        .remote()
        for index in range(2)
    ]
    ray.get([actor.where.remote() for actor in actors])
    assert all(ray.get([actor.start.remote(model) for actor in actors]))
    for actor in actors:
        ray.kill(actor)
    remove_placement_group(group)
    ray.shutdown()


async def _ours(address: str, model: str, port: int | None) -> None:
    config = LLMConfig(
        model=model,
        engine="none",
        nodes=2,
        callbacks=[stand_in],
        ray={"address": address},  # type: ignore[arg-type]
        service={"port": port},  # type: ignore[arg-type]
    )
    async with await initialize_cluster(config):
        pass
