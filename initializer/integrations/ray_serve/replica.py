"""A replica's start as phases whose work somebody else does: Ray Serve LLM, in an event loop that it blocks for minutes.

So the bus runs in a thread of its own. A phase that has come to its work says so and waits until that is done.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Final

import anyio
from anyio.from_thread import start_blocking_portal

from phasebus.bus import Bus, Context, subscribe_all
from phasebus.initializer.engines import EngineError
from phasebus.initializer.engines.protocol import ENGINE_INIT
from phasebus.initializer.engines.vllm.environment import environment_of_engine
from phasebus.initializer.engines.vllm.steps import relayed_steps
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
)
from phasebus.initializer.node.keys import ENGINE, ENGINE_ENV, NODE_KEYS, NODE_NAME, SKIP_DEFAULT
from phasebus.initializer.pipeline.phases import Phase, run_phases
from phasebus.initializer.pipeline.wiring import observe_all
from phasebus.telemetry import RunIdentity, StepNotice, Telemetry

DOWNLOAD: Final = "download"
ENGINE_START: Final = "engine_init"

_OUTERMOST_STEP: Final = "init_front_end"
"""The step of vLLM's that has all of its start in it, as the plugin in its processes calls it."""


class ReplicaStart:
    """The start of one replica.

    Args:
        name: What the replica is called.
        model: Its model.
        config: Ray's configuration of it, which callbacks get as theirs.
        callbacks: Callbacks and observers.
        entries: What the context holds at first.
        host: Where its /metrics listens.
        port: Its port; 0 picks a free one, None leaves it out.

    Attributes:
        context: What the callbacks and the phases share.
        is_told: Whether somebody is going to tell when the engine has started.
    """

    def __init__(
        self,
        name: str,
        model: str,
        config: Any,
        callbacks: Sequence[Any],
        entries: dict[str, Any],
        *,
        host: str = "127.0.0.1",
        port: int | None = 0,
    ) -> None:
        self.is_told = False
        self._config = config
        self._callbacks = callbacks
        self._model = model
        identity = RunIdentity.fresh(name)
        self._telemetry = Telemetry(identity, host=host, port=port)
        self.context = Context({NODE_NAME: name, ENGINE_ENV: {}, **entries}, keys=NODE_KEYS)
        self._reached: dict[str, Future[None]] = {DOWNLOAD: Future(), ENGINE_START: Future()}
        self._done: dict[str, Future[Any]] = {DOWNLOAD: Future(), ENGINE_START: Future()}
        self._over: Future[None] = Future()
        self._portal_manager = start_blocking_portal()
        self._portal = self._portal_manager.__enter__()
        self._portal.start_task_soon(self._live)

    async def reach(self, phase: str) -> Context:
        """Return once the callbacks before the work of `phase` are done, with what they left.

        Raises:
            Exception: What one of them raised, or what the start has ended with before.
        """
        await asyncio.wrap_future(self._reached[phase])
        return self.context

    def done(self, phase: str, result: Any = None) -> None:
        """Tell that the work of `phase` is done."""
        if not self._done[phase].done():
            self._done[phase].set_result(result)

    async def over(self) -> None:
        """Return once everything is told.

        Raises:
            Exception: What a callback raised after the last work.
        """
        await asyncio.wrap_future(self._over)

    def fail(self, error: Exception) -> None:
        """Tell that the start has failed, in whatever work it was."""
        for work in self._done.values():
            if not work.done():
                work.set_exception(error)

    async def _live(self) -> None:
        async with self._telemetry:
            try:
                await self._run()
            except Exception as error:  # noqa: BLE001  # it reaches Ray through whatever it waits for
                for reached in self._reached.values():
                    if not reached.done():
                        reached.set_exception(error)
                self._over.set_exception(error)
            else:
                self._over.set_result(None)
            await anyio.sleep_forever()  # /metrics is served as long as the replica lives

    async def _run(self) -> None:
        identity = self._telemetry.identity
        attributes = {"run": identity.run, "node": identity.node, "model": self._model, "engine": "ray serve llm"}
        async with Bus(identity.node, timing=True) as bus:
            observe_all(bus, self._telemetry)
            subscribe_all(bus, self._callbacks)
            async with bus.step(NODE, identity.node, parent=identity.parent, attributes=attributes):
                await run_phases(bus, self._phases(bus), self.context, self._config, keys=NODE_KEYS)

    def _phases(self, bus: Bus) -> Sequence[Phase]:
        def taken_over(context: Context) -> bool:
            return bool(context.get(SKIP_DEFAULT))

        async def engine(context: Context) -> None:
            await self._start_engine(bus, context)

        return (
            Phase(name="pre_initialization", before=PreInitialization),
            Phase(name="custom_initialization", before=CustomInitialization, applies=taken_over),
            Phase(name="placement_group", after=PostPlacementGroup),
            Phase(name=DOWNLOAD, before=PreDownload, work=self._download, after=PostDownload),
            Phase(name=ENGINE_START, before=PreEngineInit, work=engine, after=PostEngineInit),
            Phase(name="post_initialization", before=PostInitialization),
        )

    async def _download(self, context: Context) -> None:
        await self._others_do(DOWNLOAD)

    async def _start_engine(self, bus: Bus, context: Context) -> None:
        async with bus.step(ENGINE_INIT, "vllm", attributes={"model": self._model}) as step:
            env = {
                **context[ENGINE_ENV],
                **environment_of_engine(self._telemetry, {**os.environ, **context[ENGINE_ENV]}),
            }
            os.environ.update(env | {"TRACEPARENT": self._telemetry.identity.traceparent(step.id)})
            end = self._telemetry.relay.listen(self._ends_with(step.id))
            try:
                async with relayed_steps(bus, self._telemetry.relay):
                    context[ENGINE] = await self._others_do(ENGINE_START)
            finally:
                end()

    async def _others_do(self, phase: str) -> Any:
        self._reached[phase].set_result(None)
        return await asyncio.wrap_future(self._done[phase])

    def _ends_with(self, step: str) -> Callable[[object], None]:
        """Return what takes the end of vLLM's outermost step for that of its start, where nobody else tells of it."""

        def look(told: object) -> None:
            if self.is_told or not isinstance(told, StepNotice) or told.event != "ended":
                return
            if (told.parent, told.name) == (step, _OUTERMOST_STEP):
                if told.error is None:
                    self.done(ENGINE_START)
                else:
                    self.fail(EngineError(told.error))

        return look
