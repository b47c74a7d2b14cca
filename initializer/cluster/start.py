"""The start of a cluster on the driver: reserve the placement group, start the nodes, merge the changes of their callbacks."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any, Self

import anyio

from phasebus.bus import Bus, Context, subscribe_all
from phasebus.initializer.cluster.config import ClusterConfig
from phasebus.initializer.cluster.engines import EngineStart
from phasebus.initializer.cluster.events import CLUSTER, PostCluster, PreCluster
from phasebus.initializer.cluster.hub.recorder import DRIVER
from phasebus.initializer.cluster.hub.start import chosen_port, forwarding_journal, running_hub
from phasebus.initializer.cluster.layout import EnginePlan, EngineSeats, assign_seats, plan_engines, strategy_of
from phasebus.initializer.cluster.merge import merge, snapshot
from phasebus.initializer.cluster.nodes import ClusterNode, StartingNode, stop_nodes
from phasebus.initializer.node.config import LLMConfig
from phasebus.initializer.node.events import PostPlacementGroup, PrePlacementGroup
from phasebus.initializer.node.factors import described_configuration, node_factors
from phasebus.initializer.node.keys import (
    ENGINE_ARGS,
    NODE_KEYS,
    PLACEMENT_BUNDLES,
    PLACEMENT_GROUP,
    PLACEMENT_STRATEGY,
)
from phasebus.initializer.node.startup import entries_of
from phasebus.initializer.pipeline.phases import Phase, phase_names, run_phases
from phasebus.initializer.pipeline.wiring import available_port, available_telemetry, observe_all
from phasebus.initializer.ray.cluster import RAY, connected
from phasebus.initializer.ray.placement import has_gpus, nodes_of, release, reserve
from phasebus.telemetry import Telemetry
from phasebus.telemetry.journal import journal_of

logger = logging.getLogger("phasebus.cluster")

_NOT_FOR_NODES = (PLACEMENT_BUNDLES, PLACEMENT_STRATEGY, PLACEMENT_GROUP)


class ClusterStart:
    """One start of a cluster.

    Args:
        config: The configuration of the cluster.
        bus: The bus that the driver's phases are published on.
        telemetry: The telemetry of the run.
    """

    def __init__(self, config: ClusterConfig, bus: Bus, telemetry: Telemetry) -> None:
        self._config = config
        self._bus = bus
        self._telemetry = telemetry
        self._resources = AsyncExitStack()
        self._plans: Sequence[EnginePlan] = ()
        self._own_ray = False
        self._hub: Any = None

    async def run(self) -> tuple[Context, list[ClusterNode], AsyncExitStack]:
        """Run the start; return the merged context, the nodes, and a stack that releases all resources when it is closed.

        If the start fails, all resources are released before its error is raised.
        """
        config = self._config
        first = entries_of(config.models[0]) if len(config.models) == 1 else {}
        context = Context(first, keys=[*NODE_KEYS, *config.keys])
        for model in config.models:
            subscribe_to_placement(self._bus, model.callbacks)
        phases, last = self._phases(), Phase(name="post_cluster", before=PostCluster)
        attributes = {
            "run": self._telemetry.identity.run,
            "phases": phase_names((*phases, last)),
            **described_configuration(self._factors),
        }
        try:
            async with self._bus.step(CLUSTER, config.name, attributes=attributes) as step:
                await run_phases(self._bus, phases, context, config)
                async with self._bus.step(RAY, "locate_bundles"):
                    ray_nodes = await nodes_of(context[PLACEMENT_GROUP])
                seats = assign_seats(self._plans, context[PLACEMENT_BUNDLES], ray_nodes)
                step.attributes["nodes"] = sum(len(engine.seats) for engine in seats)
                nodes = await self._start_nodes(seats, context, step.id)
                merge(context, {node.name: node.changes for node in nodes}, [*NODE_KEYS, *config.keys])
                await run_phases(self._bus, [last], context, config)
            if self._hub is not None:
                self._resources.callback(self._mark_as_stopping)  # the first that is called at the end
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._resources.aclose()
            raise
        return context, nodes, self._resources.pop_all()

    def _factors(self) -> Mapping[str, Any]:
        """Return the factors of the cluster's configuration; with several models, their names begin with a number."""
        models = self._config.models
        factors: dict[str, Any] = {}
        for number, model in enumerate(models):
            each = {**node_factors(model), "nodes": model.nodes, "replicas": model.replicas}
            factors |= each if len(models) == 1 else {f"{number}.{name}": value for name, value in each.items()}
        return {**factors, "models": len(models)}

    def _phases(self) -> tuple[Phase, ...]:
        return (
            Phase(name="pre_cluster", before=PreCluster),
            Phase(
                name="placement_group",
                prepare=self._propose,
                before=PrePlacementGroup,
                work=self._place,
                after=PostPlacementGroup,
            ),
        )

    async def _propose(self, context: Context) -> None:
        """Set the bundles and the strategy in the context, where callbacks may change them before the reservation."""
        async with self._bus.step(RAY, "start"):
            self._own_ray = await self._resources.enter_async_context(connected(self._config.ray))
            await self._start_hub()
        config = self._config
        if ENGINE_ARGS in context:  # a callback may have changed the number of workers
            changed = [model.model_copy(update={"engine_args": context[ENGINE_ARGS]}) for model in config.models]
            config = config.model_copy(update={"models": changed})
        self._plans = plan_engines(config, gpus=has_gpus())
        context[PLACEMENT_BUNDLES] = [bundle for plan in self._plans for bundle in plan.bundles]
        context[PLACEMENT_STRATEGY] = strategy_of(config, self._plans, own_ray=self._own_ray)

    async def _start_hub(self) -> None:
        """Start the hub, and forward the whole journal of the driver to it."""
        service, journal = self._config.service, journal_of(self._telemetry.identity)
        port = available_port(
            lambda candidate: chosen_port(service.model_copy(update={"port": candidate})),
            service.host,
            service.port,
            logger.warning,
        )
        if port is not None:
            hub = running_hub(service.host, port, service.trace_url, own_ray=self._own_ray, access=service.access)
            self._hub = await self._resources.enter_async_context(hub)
            await self._resources.enter_async_context(forwarding_journal(self._hub, DRIVER, journal))

    def _mark_as_stopping(self) -> None:
        """Have the hub report that the cluster is not ready; it need not answer, and may have died."""
        with suppress(Exception):
            self._hub.mark_as_stopping.remote()

    async def _place(self, context: Context) -> None:
        group = await reserve(
            context[PLACEMENT_BUNDLES], context[PLACEMENT_STRATEGY], self._config.placement_timeout_seconds
        )
        self._resources.push_async_callback(release, group)
        context[PLACEMENT_GROUP] = group

    async def _start_nodes(self, engines: Sequence[EngineSeats], context: Context, step: str) -> list[ClusterNode]:
        """Start all engines in parallel; an engine that fails without retries left cancels the others."""
        written = [key for key in context if key not in _NOT_FOR_NODES and context.history(key)[-1].by != "phasebus"]
        given = snapshot(context, written)
        nodes: dict[int, Sequence[ClusterNode]] = {}
        started: list[StartingNode] = []
        self._resources.push_async_callback(stop_nodes, started)
        errors: list[Exception] = []

        async def start(number: int, engine: EngineSeats) -> None:
            try:
                nodes[number] = await self._engine(engine, context[PLACEMENT_GROUP], given, step, started).run()
            except Exception as error:  # noqa: BLE001  # raised again below: the task group would wrap it
                errors.append(error)
                tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            for number, engine in enumerate(engines):
                tasks.start_soon(start, number, engine)
        if len(errors) > 1:
            raise ExceptionGroup(f"{len(errors)} engines failed to start", errors)
        if errors:
            raise errors[0]
        return [node for number in sorted(nodes) for node in nodes[number]]

    def _engine(
        self, engine: EngineSeats, group: Any, given: Mapping[str, Any], step: str, started: list[StartingNode]
    ) -> EngineStart:
        return EngineStart(
            engine,
            bus=self._bus,
            identity=self._telemetry.identity,
            step=step,
            group=group,
            given=given,
            hub=self._hub,
            silence=self._config.silence_seconds,
            started=started,
        )


def subscribe_to_placement(bus: Bus, callbacks: Sequence[Any]) -> None:
    """Subscribe `callbacks` of the nodes to the events of the placement, which the driver performs for them."""
    for callback in callbacks:
        probe = Bus()
        subscribe_all(probe, [callback])
        wanted = tuple(event for event in (PrePlacementGroup, PostPlacementGroup) if probe.wants(event))
        if wanted and not _observes(callback):
            bus.subscribe(wanted, callback)


def _observes(callback: object) -> bool:
    from phasebus.bus import Observer

    return isinstance(callback, Observer)


class Cluster:
    """A cluster that is ready. Close it, or leave it as an asynchronous context manager, to release all resources.

    Attributes:
        nodes: Its nodes.
        context: The driver's context, with the changes of all nodes merged into it, and its history.
    """

    def __init__(self, nodes: Sequence[ClusterNode], context: Context, resources: AsyncExitStack) -> None:
        self.nodes = nodes
        self.context = context
        self._resources = resources

    @property
    def engine(self) -> ClusterNode | None:
        """The first of its nodes that has an engine; None if no node has one."""
        return next((node for node in self.nodes if node.engine), None)

    async def close(self) -> None:
        """End every node and release the placement group, also if the caller is cancelled. May be called twice.

        Each node exports its last spans and closes its journal first; it is killed if it does not end in time.
        """
        with anyio.CancelScope(shield=True):
            await self._resources.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def initialize_cluster(
    config: LLMConfig | ClusterConfig, *, telemetry: Telemetry | None = None, bus: Bus | None = None
) -> Cluster:
    """Start a model on several nodes, or several models: reserve the bundles and start a node on each, in one trace.

    Callbacks of a model run on its nodes, except for the placement: these run on the driver, which is this process.
    Callbacks of the cluster (`driver_callbacks` of a model) run on the driver only.

    Args:
        config: The configuration of the cluster, or of one model.
        telemetry: Open telemetry for the driver's own spans, metrics and status. By default, one is opened for the start,
            without the HTTP service.
        bus: An open bus for the driver's own phases. By default, one is opened for the start, with the built-in observers.

    Raises:
        PhasebusError: A phase or a node failed, with NodeLostError if the node was lost; notes name the node, the phase and,
            if one raised the error, the callback. Every resource has been released.
        Exception: The error of a callback, with the same notes.
    """
    whole = ClusterConfig.of(config)
    async with AsyncExitStack() as stack:
        if telemetry is None:
            telemetry = await stack.enter_async_context(available_telemetry(port=None))
        if bus is None:
            bus = await stack.enter_async_context(Bus("cluster", timing=True))
            observe_all(bus, telemetry)
        subscribe_all(bus, whole.callbacks)
        context, nodes, resources = await ClusterStart(whole, bus, telemetry).run()
        return Cluster(nodes, context, resources)
