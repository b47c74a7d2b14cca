"""The driver's handles of starting and of ready nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from phasebus.initializer.cluster.merge import NodeChange
from phasebus.initializer.cluster.node_runtime import NodeReport
from phasebus.initializer.ray.actors import Actor

_STOP_SECONDS = 30.0
"""Maximum time for an orderly shutdown of a node, in seconds: more than the limits of its engine, bus, journal and spans
together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterNode:
    """A node of a cluster that is ready.

    Attributes:
        name: Its name.
        host: The name of its machine.
        pid: The id of its process there.
        context: Its context, without values that cannot be pickled.
        changes: The changes that callbacks made in it, in order.
        engine: Whether it has an engine.
        url: The URL of its engine's server; None without one.
    """

    name: str
    host: str
    pid: int
    context: Mapping[str, Any]
    changes: Sequence[NodeChange]
    engine: bool
    actor: Actor
    url: str | None = None

    async def generate(self, prompt: str, **sampling: Any) -> str:
        """Return the text that the model generates from `prompt`; `sampling` are the engine's own sampling parameters."""
        return str(await self.actor.call("generate", prompt, sampling))


@dataclass(frozen=True, slots=True)
class StartingNode:
    """A node whose actor answers.

    Attributes:
        name: Its name.
        bundle: The index of its bundle in the placement group.
        actor: Its actor.
        journal: The path of its journal, on its own machine.
    """

    name: str
    bundle: int
    actor: Actor
    journal: Path


def ready_node(node: StartingNode, report: NodeReport) -> ClusterNode:
    """Return the handle of a node that has reported that it is ready."""
    return ClusterNode(
        name=node.name,
        host=node.actor.host,
        pid=node.actor.pid,
        context=report.context,
        changes=report.changes,
        engine=report.engine,
        actor=node.actor,
        url=report.url,
    )


async def stop_nodes(nodes: Sequence[StartingNode]) -> None:
    """Shut the nodes down in parallel; kill those that do not end in time."""
    async with anyio.create_task_group() as tasks:
        for node in nodes:
            tasks.start_soon(node.actor.close, "stop", _STOP_SECONDS)
