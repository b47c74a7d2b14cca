"""A node as the driver knows it: while it starts, and once it is ready."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from phasebus.initializer.cluster.merge import NodeChange
from phasebus.initializer.cluster.node_runtime import Report
from phasebus.initializer.ray.actors import Actor

_STOP_SECONDS = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterNode:
    """A node of a cluster that is ready.

    Attributes:
        name: Its name.
        host: The name of its machine.
        pid: The id of its process there.
        context: What its callbacks and phases left, as far as it can be sent.
        changes: What its callbacks changed, in order.
        engine: Whether it has an engine to be asked.
    """

    name: str
    host: str
    pid: int
    context: Mapping[str, Any]
    changes: Sequence[NodeChange]
    engine: bool
    actor: Actor

    async def generate(self, prompt: str, **sampling: Any) -> str:
        """Return what the model makes of `prompt`; `sampling` are the engine's own sampling parameters."""
        return str(await self.actor.call("generate", prompt, sampling))


@dataclass(frozen=True, slots=True)
class StartingNode:
    """A node whose actor answers.

    Attributes:
        name: Its name.
        bundle: The index of its bundle in the placement group.
        actor: Its actor.
        journal: Where its journal is, on its own machine.
    """

    name: str
    bundle: int
    actor: Actor
    journal: Path


def ready_node(node: StartingNode, report: Report) -> ClusterNode:
    """Return a node that has reported to be ready."""
    return ClusterNode(
        name=node.name,
        host=node.actor.host,
        pid=node.actor.pid,
        context=report.context,
        changes=report.changes,
        engine=report.engine,
        actor=node.actor,
    )


async def stop_nodes(nodes: Sequence[StartingNode]) -> None:
    """End the nodes side by side, in order where that can be done in seconds, and in any case."""
    async with anyio.create_task_group() as tasks:
        for node in nodes:
            tasks.start_soon(node.actor.close, "stop", _STOP_SECONDS)
