"""`initialize_node`: the phases of a node's start-up, from a model's name to an engine that answers."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, Self

from phasebus.bus import Bus, Context, subscribe_all
from phasebus.initializer.assembly import observe_all
from phasebus.initializer.config import LLMConfig
from phasebus.initializer.context import (
    DOWNLOAD_DESTINATION,
    DOWNLOAD_RESULT,
    ENGINE,
    ENGINE_ARGS,
    ENGINE_ENV,
    EXTRA_FILES,
    LOCAL_NODE_DOWNLOAD_MODEL,
    MODEL,
    NODE_KEYS,
    PLACEMENT_BUNDLES,
    PLACEMENT_GROUP,
    PLACEMENT_STRATEGY,
    RUNTIME_ENV,
    SKIP_DEFAULT,
)
from phasebus.initializer.downloads import fetch
from phasebus.initializer.engines import Engine, Launch, Launcher
from phasebus.initializer.engines.none import NoEngine
from phasebus.initializer.engines.vllm import VLLM
from phasebus.initializer.phases import (
    ENGINE_INIT,
    NODE,
    RAY,
    CustomInitialization,
    PostDownload,
    PostEngineInit,
    PostInitialization,
    PostPlacementGroup,
    PreDownload,
    PreEngineInit,
    PreInitialization,
    PrePlacementGroup,
)
from phasebus.initializer.pipeline import Phase, run_phases
from phasebus.initializer.ray.cluster import connected
from phasebus.initializer.ray.placement import default_bundles, release, reserve
from phasebus.telemetry import Telemetry
from phasebus.telemetry.journal import journal_path

LAUNCHERS: Mapping[str, Launcher] = {"vllm": VLLM(), "none": NoEngine()}
"""The kinds of engine, by their names in the configuration."""


class Node:
    """A node that is ready. Close it, or leave it as an asynchronous context manager, to give everything back.

    Attributes:
        engine: The engine; None if the callbacks that took over provided none.
        context: What the callbacks and the phases left, with its history.
    """

    def __init__(self, engine: Engine | None, context: Context, resources: AsyncExitStack) -> None:
        self.engine = engine
        self.context = context
        self._resources = resources

    async def close(self) -> None:
        """End the engine and give back what was reserved. May be called twice."""
        await self._resources.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def initialize_node(config: LLMConfig, *, telemetry: Telemetry | None = None, bus: Bus | None = None) -> Node:
    """Start a node: fetch the model, reserve its place, start the engine; every phase an event on the bus.

    Args:
        config: What is started, and the callbacks that may change how.
        telemetry: An open telemetry that is to carry spans, metrics and status; by default one of its own for the time
            of the start, without the HTTP service.
        bus: An open bus with whatever subscribers and observers it has. By default one of its own for the time of the
            start, with the built-in observers on it.

    Raises:
        PhasebusError: A phase failed; notes name the phase and, where it was one, the callback. Nothing is left behind.
        Exception: A callback raised it; with the same notes.
    """
    async with AsyncExitStack() as stack:
        if telemetry is None:
            telemetry = await stack.enter_async_context(Telemetry(port=None))
        if bus is None:
            bus = await stack.enter_async_context(Bus("node", timing=True))
            observe_all(bus, telemetry)
        subscribe_all(bus, config.callbacks)
        return await _NodeStart(config, bus, telemetry).run()


class _NodeStart:
    """The work of a node's phases, and what it holds on to meanwhile."""

    def __init__(self, config: LLMConfig, bus: Bus, telemetry: Telemetry) -> None:
        self._config = config
        self._bus = bus
        self._telemetry = telemetry
        self._launcher = LAUNCHERS[config.engine]
        self._held = AsyncExitStack()
        self._ray = False

    async def run(self) -> Node:
        """Run the phases; hold on to what they took only if all of them end well."""
        config, identity = self._config, self._telemetry.identity
        context = Context(
            {
                MODEL: config.model,
                LOCAL_NODE_DOWNLOAD_MODEL: config.local_node_download_model,
                DOWNLOAD_DESTINATION: config.download_destination,
                EXTRA_FILES: config.extra_files,
                PLACEMENT_STRATEGY: config.placement.strategy,
                RUNTIME_ENV: config.runtime_env,
                ENGINE_ARGS: config.engine_args,
                ENGINE_ENV: config.engine_env,
            },
            keys=NODE_KEYS,
        )
        name = config.name or identity.node
        attributes = {"run": identity.run, "node": name, "model": config.model, "engine": config.engine}
        try:
            async with self._bus.step(NODE, name, attributes=attributes):
                self._launcher.check()
                await run_phases(self._bus, self._phases(), context, config)
        except BaseException:
            await self._held.aclose()
            raise
        return Node(context.get(ENGINE), context, self._held.pop_all())

    def _phases(self) -> tuple[Phase, ...]:
        def by_default(context: Context) -> bool:
            return not context.get(SKIP_DEFAULT)

        return (
            Phase(name="pre_initialization", before=PreInitialization),
            Phase(
                name="custom_initialization",
                before=CustomInitialization,
                applies=lambda context: bool(context.get(SKIP_DEFAULT)),
            ),
            Phase(name="download", before=PreDownload, work=self._download, after=PostDownload, applies=by_default),
            Phase(
                name="placement_group",
                prepare=self._propose_bundles,
                before=PrePlacementGroup,
                work=self._place,
                after=PostPlacementGroup,
                applies=by_default,
            ),
            Phase(
                name="engine_init",
                before=PreEngineInit,
                work=self._start_engine,
                after=PostEngineInit,
                applies=lambda context: ENGINE not in context,
            ),
            Phase(name="post_initialization", before=PostInitialization),
        )

    async def _download(self, context: Context) -> None:
        context[DOWNLOAD_RESULT] = await fetch(
            self._bus,
            context[MODEL],
            context[LOCAL_NODE_DOWNLOAD_MODEL],
            destination=context[DOWNLOAD_DESTINATION],
            extra_files=context[EXTRA_FILES],
            settings=self._config.download,
        )

    async def _propose_bundles(self, context: Context) -> None:
        """Put into the context what will be reserved unless a callback changes it."""
        bundles = self._config.placement.bundles
        if self._config.engine == "none":
            bundles = bundles or []
        elif bundles is None:
            await self._connect_ray()
            bundles = default_bundles(_workers(context[ENGINE_ARGS]))
        context[PLACEMENT_BUNDLES] = bundles

    async def _place(self, context: Context) -> None:
        context[PLACEMENT_GROUP] = None
        if bundles := context[PLACEMENT_BUNDLES]:
            await self._connect_ray()
            group = await reserve(bundles, context[PLACEMENT_STRATEGY], self._config.placement.timeout_seconds)
            self._held.push_async_callback(release, group)
            context[PLACEMENT_GROUP] = group

    async def _start_engine(self, context: Context) -> None:
        if self._config.engine != "none":
            await self._connect_ray()
        fetched = context.get(DOWNLOAD_RESULT)
        identity = self._telemetry.identity
        async with self._bus.step(ENGINE_INIT, self._config.engine, attributes={"model": context[MODEL]}) as step:
            engine = await self._launcher.start(
                Launch(
                    bus=self._bus,
                    telemetry=self._telemetry,
                    step=step.id,
                    model=context[MODEL] if fetched is None else str(fetched.path),
                    args=context[ENGINE_ARGS],
                    env=context[ENGINE_ENV],
                    runtime_env=context[RUNTIME_ENV],
                    placement_group=context.get(PLACEMENT_GROUP),
                    timeout=self._config.engine_timeout_seconds,
                    log=journal_path(identity.run).with_suffix(".engine.log"),
                )
            )
            self._held.push_async_callback(engine.close)
        context[ENGINE] = engine

    async def _connect_ray(self) -> None:
        """Be connected to Ray, from now until the node is closed."""
        if not self._ray:
            async with self._bus.step(RAY, "start"):
                await self._held.enter_async_context(connected(self._config.ray))
            self._ray = True


def _workers(engine_args: Mapping[str, Any]) -> int:
    """Return how many workers an engine of these arguments has: tensor times pipeline parallel."""
    return int(engine_args.get("tensor_parallel_size", 1)) * int(engine_args.get("pipeline_parallel_size", 1))
