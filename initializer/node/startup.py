"""The phases of a node's start-up, in order, and the work of each."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from typing import Any

import anyio
import anyio.to_thread

from phasebus.bus import Bus, Context, current_step
from phasebus.initializer.downloads import fetch
from phasebus.initializer.downloads.sources import source_of
from phasebus.initializer.downloads.sources.local import LocalSource
from phasebus.initializer.engines.optional import BeginsForkServer, announced_steps, url_of
from phasebus.initializer.engines.protocol import ENGINE_INIT, EngineError, ForkServerUse, Launch, Prepared
from phasebus.initializer.engines.registry import find_launcher
from phasebus.initializer.node.config import LLMConfig
from phasebus.initializer.node.events import (
    NODE,
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
from phasebus.initializer.node.factors import described_configuration, node_factors
from phasebus.initializer.node.keys import (
    DOWNLOAD_DESTINATION,
    DOWNLOAD_RESULT,
    ENGINE,
    ENGINE_ARGS,
    ENGINE_ENV,
    EXTRA_FILES,
    LOCAL_NODE_DOWNLOAD_MODEL,
    MODEL,
    NODE_KEYS,
    NODE_NAME,
    PLACEMENT_BUNDLES,
    PLACEMENT_GROUP,
    PLACEMENT_STRATEGY,
    RUNTIME_ENV,
    SKIP_DEFAULT,
)
from phasebus.initializer.node.launch import launch_of
from phasebus.initializer.node.probe import probe_engine
from phasebus.initializer.pipeline.control_flow import errors_only
from phasebus.initializer.pipeline.phases import Phase, phase_names, run_phases
from phasebus.initializer.ray.cluster import RAY, connected, starts_ray
from phasebus.initializer.ray.placement import default_bundles, release, reserve
from phasebus.telemetry import Telemetry, names


def entries_of(config: LLMConfig) -> dict[str, Any]:
    """Return the initial entries of a context that a configuration provides."""
    return {
        MODEL: config.model,
        LOCAL_NODE_DOWNLOAD_MODEL: config.local_node_download_model,
        DOWNLOAD_DESTINATION: config.download_destination,
        EXTRA_FILES: config.extra_files,
        PLACEMENT_STRATEGY: config.placement.strategy,
        RUNTIME_ENV: config.runtime_env,
        ENGINE_ARGS: config.engine_args,
        ENGINE_ENV: config.engine_env,
    }


class NodeStart:
    """One start-up of a node.

    The download, the placement and the start of the engine's process are independent and run in parallel. The engine waits
    for all of them.

    Args:
        config: The configuration of the node.
        bus: The bus that the phases are published on.
        telemetry: The telemetry that receives the engine's own spans.
        given: Initial entries of the context, in place of the configuration's. With a `PLACEMENT_GROUP` among them,
            nothing is reserved.
    """

    def __init__(self, config: LLMConfig, bus: Bus, telemetry: Telemetry, given: Mapping[str, Any]) -> None:
        self._config = config
        self._bus = bus
        self._telemetry = telemetry
        self._given = given
        self._launcher = find_launcher(config.engine)
        self._held = AsyncExitStack()
        self._prepared: Prepared | None = None
        self._ray = False
        self._forkserver: ForkServerUse = config.forkserver
        self._begun = ExitStack()
        self._kept_begun = False

    async def run(self) -> tuple[Context, AsyncExitStack]:
        """Run the phases; return the context, and a stack that releases all resources when it is closed.

        If a phase fails, all resources are released before its error is raised.
        """
        config, identity = self._config, self._telemetry.identity
        name = config.name or identity.node
        context = Context({NODE_NAME: name, **entries_of(config), **self._given}, keys=NODE_KEYS)
        phases = self._phases()
        attributes = {
            "run": identity.run,
            "node": name,
            "model": config.model,
            "engine": config.engine,
            "phases": phase_names(phases),
            **described_configuration(lambda: node_factors(config)),
        }
        try:
            async with self._bus.step(NODE, name, parent=identity.parent, attributes=attributes):
                with self._begun:
                    await run_phases(self._bus, phases, context, config, keys=NODE_KEYS)
                with errors_only():
                    await self._check_ready(context)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._held.aclose()
            raise
        return context, self._held.pop_all()

    async def _begin_fork_server(self, context: Context) -> None:
        """Start a fork server that imports beside Ray and ends with the start; or one that stays, if Ray runs."""
        launcher = self._launcher
        if not self._config.engine_preload or not isinstance(launcher, BeginsForkServer):
            return
        if self._config.forkserver == "keep":
            if not starts_ray(self._config.ray):
                await self._begin_kept_fork_server(context)
        elif ENGINE not in context and PLACEMENT_GROUP not in context and starts_ray(self._config.ray):
            server = launcher.begun_fork_server(self._launch(context, ""))
            await anyio.to_thread.run_sync(self._begun.enter_context, server)
            self._forkserver = "existing"

    async def _begin_kept_fork_server(self, context: Context) -> None:
        """Start a fork server that stays, if there is none. Its priority cannot be low, as it forks commands of all kinds."""
        launcher = self._launcher
        wanted = self._config.forkserver == "keep" and self._config.engine_preload and not self._kept_begun
        if wanted and isinstance(launcher, BeginsForkServer):
            self._kept_begun = True
            await anyio.to_thread.run_sync(launcher.begin_kept_fork_server, self._launch(context, ""))

    def _phases(self) -> tuple[Phase, ...]:
        def is_replaced(context: Context) -> bool:
            return bool(context.get(SKIP_DEFAULT))

        def is_default(context: Context) -> bool:
            return not is_replaced(context)

        def needs_engine(context: Context) -> bool:
            return ENGINE not in context

        def needs_placement(context: Context) -> bool:
            return is_default(context) and PLACEMENT_GROUP not in context

        return (
            Phase(name="pre_initialization", before=PreInitialization, work=self._check_engine),
            Phase(name="custom_initialization", before=CustomInitialization, applies=is_replaced),
            Phase(
                name="download",
                before=PreDownload,
                work=self._download,
                after=PostDownload,
                applies=is_default,
                beside=self._takes_time,
            ),
            Phase(
                name="placement_group",
                prepare=self._propose_bundles,
                before=PrePlacementGroup,
                work=self._place,
                after=PostPlacementGroup,
                applies=needs_placement,
                joins=False,
            ),
            Phase(
                name="engine_process",
                work=self._prepare_engine,
                applies=lambda context: needs_engine(context) and self._runs_on_ray(context),
                beside=lambda _: True,
                joins=False,
            ),
            Phase(
                name="engine_init",
                before=PreEngineInit,
                work=self._start_engine,
                after=PostEngineInit,
                applies=needs_engine,
            ),
            Phase(name="post_initialization", before=PostInitialization),
        )

    async def _check_ready(self, context: Context) -> None:
        """Check that the engine answers.

        Raises:
            EngineError: There is no engine.
            Exception: The error of the engine's `probe`, if it has one.
        """
        if ENGINE not in context:
            raise EngineError("every phase has finished, but there is no engine: a callback has deleted it")
        with anyio.fail_after(self._config.engine_timeout_seconds):
            await probe_engine(context[ENGINE])

    async def _check_engine(self, context: Context) -> None:
        """Reject arguments with which the engine cannot start, before the download, which may take minutes; begin to import it."""
        if not context.get(SKIP_DEFAULT):
            self._launcher.check(context[ENGINE_ARGS])
            await self._begin_fork_server(context)

    def _runs_on_ray(self, context: Context) -> bool:
        return self._launcher.workers(context[ENGINE_ARGS]) > 0

    def _takes_time(self, context: Context) -> bool:
        """Return whether the download may run beside other phases. Checking a local path is fast, so that is done first."""
        return not isinstance(source_of(context[MODEL], self._config.download), LocalSource)

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
        """Set the bundles to reserve, which a callback may change."""
        bundles = self._config.placement.bundles
        if not self._runs_on_ray(context):
            bundles = bundles or []
        elif bundles is None:
            await self._connect_ray()
            bundles = default_bundles(self._launcher.workers(context[ENGINE_ARGS]))
        context[PLACEMENT_BUNDLES] = bundles

    async def _place(self, context: Context) -> None:
        if context.get(PLACEMENT_GROUP) is not None:  # a callback provided it and also releases it
            return
        context[PLACEMENT_GROUP] = None
        if bundles := context[PLACEMENT_BUNDLES]:
            await self._connect_ray()
            group = await reserve(bundles, context[PLACEMENT_STRATEGY], self._config.placement.timeout_seconds)
            self._held.push_async_callback(release, group)
            context[PLACEMENT_GROUP] = group

    async def _prepare_engine(self, context: Context) -> None:
        """Start the engine's process, which imports while the model is downloaded."""
        await self._connect_ray()
        await self._begin_kept_fork_server(context)
        step = current_step()
        assert step is not None  # noqa: S101  # a phase's work runs in the step of the phase
        self._held.push_async_callback(self._close_prepared)
        self._prepared = await self._launcher.prepare(self._launch(context, step.id))

    async def _close_prepared(self) -> None:
        if self._prepared is not None:
            await self._prepared.close()

    async def _start_engine(self, context: Context) -> None:
        if self._runs_on_ray(context):
            await self._connect_ray()
        attributes = {"model": context[MODEL], **announced_steps(self._launcher)}
        self._telemetry.metrics.series(names.ENGINE_TIMEOUT, {}).set(self._config.engine_timeout_seconds)
        async with self._bus.step(ENGINE_INIT, self._config.engine, attributes=attributes) as step:
            prepared, self._prepared = self._prepared, None
            engine = await self._launcher.start(self._launch(context, step.id), prepared)
            self._held.push_async_callback(engine.close)
            if (url := url_of(engine)) is not None:
                step.attributes["url"] = url
        context[ENGINE] = engine

    def _launch(self, context: Context, step: str) -> Launch:
        launch = launch_of(self._config, context, step, self._bus, self._telemetry)
        return replace(launch, forkserver=self._forkserver)

    async def _connect_ray(self) -> None:
        """Connect to Ray until the node is closed; does nothing if connected."""
        if not self._ray:
            async with self._bus.step(RAY, "start"):
                await self._held.enter_async_context(connected(self._config.ray))
            self._ray = True
