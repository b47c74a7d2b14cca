"""`initialize_cluster`: from a configuration to engines on many nodes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Self

from phasebus.bus import Bus, Context, subscribe_all
from phasebus.initializer.cluster.config import ClusterConfig
from phasebus.initializer.cluster.nodes import ClusterNode
from phasebus.initializer.cluster.start import ClusterStart
from phasebus.initializer.node.config import LLMConfig
from phasebus.initializer.pipeline.wiring import observe_all
from phasebus.telemetry import Telemetry


class Cluster:
    """A cluster that is ready. Close it, or leave it as an asynchronous context manager, to give everything back.

    Attributes:
        nodes: Its nodes.
        context: What the driver's callbacks left, and what those of the nodes changed, merged, with its history.
    """

    def __init__(self, nodes: Sequence[ClusterNode], context: Context, resources: AsyncExitStack) -> None:
        self.nodes = nodes
        self.context = context
        self._resources = resources

    @property
    def engine(self) -> ClusterNode | None:
        """The first of its nodes that has an engine; None if there is none."""
        return next((node for node in self.nodes if node.engine), None)

    async def close(self) -> None:
        """End every node and give back what was reserved. May be called twice."""
        await self._resources.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def initialize_cluster(
    config: LLMConfig | ClusterConfig, *, telemetry: Telemetry | None = None, bus: Bus | None = None
) -> Cluster:
    """Start a model on several nodes, or several models: reserve their places, start a node in each, all in one trace.

    Callbacks of a model are called on its nodes, and where the placement is made, which is here; those of the cluster
    (`driver_callbacks` of a model) are called here.

    Args:
        config: What is started.
        telemetry: An open telemetry for the driver's own spans, metrics and status; by default one of its own for the
            time of the start, without the HTTP service.
        bus: An open bus for the driver's own phases. By default one of its own for the time of the start, with the
            built-in observers on it.

    Raises:
        PhasebusError: A phase failed, or a node: NodeLostError if it went away, else what it failed with; notes name
            the node, the phase and, where it was one, the callback. Nothing is left behind.
        Exception: A callback raised it; with the same notes.
    """
    whole = ClusterConfig.of(config)
    async with AsyncExitStack() as stack:
        if telemetry is None:
            telemetry = await stack.enter_async_context(Telemetry(port=None))
        if bus is None:
            bus = await stack.enter_async_context(Bus("cluster", timing=True))
            observe_all(bus, telemetry)
        subscribe_all(bus, whole.callbacks)
        context, nodes, resources = await ClusterStart(whole, bus, telemetry).run()
        return Cluster(nodes, context, resources)
