"""The start of a Ray Serve LLM replica as phases whose work Ray does, in an event loop that it blocks for minutes.

The bus therefore runs in a thread of its own. A phase signals that its work may begin, and waits for the end of that work.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final

import anyio
from anyio.from_thread import start_blocking_portal

from phasebus.bus import Bus, Context, subscribe_all
from phasebus.initializer.engines.optional import announced_steps
from phasebus.initializer.engines.protocol import ENGINE_INIT, EngineError
from phasebus.initializer.engines.registry import find_observer
from phasebus.initializer.integrations.ray_serve.application import SERVE
from phasebus.initializer.integrations.ray_serve.first_line import FIRST_LINE_NS
from phasebus.initializer.integrations.ray_serve.origin import ReplicaOrigin
from phasebus.initializer.integrations.ray_serve.past_steps import PastStep, publish_past
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
from phasebus.initializer.node.factors import described_configuration, engine_factors
from phasebus.initializer.node.keys import ENGINE, ENGINE_ARGS, ENGINE_ENV, NODE_KEYS, NODE_NAME, SKIP_DEFAULT
from phasebus.initializer.pipeline.phases import Phase, phase_names, run_phases
from phasebus.initializer.pipeline.wiring import available_telemetry, observe_all
from phasebus.initializer.ray.cluster import RAY
from phasebus.initializer.ray.process_age import creation_time_ns
from phasebus.telemetry import RunIdentity, StepNotice
from phasebus.telemetry.span_names import LINKED_TO

DOWNLOAD: Final = "download"
ENGINE_START: Final = "engine_init"


class ReplicaStart:
    """The start of one replica.

    A replica starts whatever its observers lack: a part of them that is not available is left out with one warning.

    Args:
        name: The name of the replica.
        model: Its model.
        config: Ray's configuration of it, handed to every callback.
        callbacks: Callbacks and observers.
        entries: The first entries of the context.
        host: The address of its /metrics.
        port: Its port; 0 picks a free one, None leaves it out.
        origin: Where its start belongs; by default a trace of its own, or that of a TRACEPARENT.
        imported_ns: When this process had imported Ray Serve LLM, in nanoseconds since the epoch.

    Attributes:
        context: The context of the callbacks and the phases.
        reports_engine: Whether the caller reports the end of the engine's start; otherwise the engine's own steps do.
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
        origin: ReplicaOrigin | None = None,
        imported_ns: int = FIRST_LINE_NS,
    ) -> None:
        self.reports_engine = False
        self._engine_made_ns: int | None = None
        self._config = config
        self._callbacks = callbacks
        self._model = model
        self._observer = find_observer()
        self._origin = origin or ReplicaOrigin(identity=RunIdentity.fresh(name))
        self._imported_ns = imported_ns
        self._telemetry = available_telemetry(self._origin.identity, host=host, port=port)
        self.context = Context({NODE_NAME: name, ENGINE_ENV: {}, **entries}, keys=NODE_KEYS)
        self._begun: dict[str, Future[None]] = {DOWNLOAD: Future(), ENGINE_START: Future()}
        self._done: dict[str, Future[Any]] = {DOWNLOAD: Future(), ENGINE_START: Future()}
        self._ended: Future[None] = Future()
        self._portal_manager = start_blocking_portal()
        self._portal = self._portal_manager.__enter__()
        self._serving = self._portal.start_task_soon(self._serve)

    async def wait_for(self, phase: str) -> Context:
        """Return the context once the callbacks before the work of `phase` have run.

        Raises:
            Exception: The error of a callback, or the one that ended the start before.
        """
        await asyncio.wrap_future(self._begun[phase])
        return self.context

    def finish(self, phase: str, result: Any = None) -> None:
        """Report that the work of `phase` is done."""
        if not self._done[phase].done():
            self._done[phase].set_result(result)

    def fail(self, error: Exception) -> None:
        """Report that the start has failed, in the work of any phase."""
        for work in self._done.values():
            if not work.done():
                work.set_exception(error)

    async def wait_for_end(self) -> None:
        """Return once the last phase has ended.

        Raises:
            Exception: The error of a callback after the last work.
        """
        await asyncio.wrap_future(self._ended)

    def close(self) -> None:
        """Cancel the phases that still run, stop serving /metrics, and export the last spans. Blocks until all has ended."""
        self._serving.cancel()
        self._portal_manager.__exit__(None, None, None)

    async def _serve(self) -> None:
        """Run the phases, and serve /metrics for as long as the replica lives."""
        async with self._telemetry:
            try:
                await self._run()
            except Exception as error:  # noqa: BLE001  # it reaches Ray through the future that Ray waits for
                for begun in self._begun.values():
                    if not begun.done():
                        begun.set_exception(error)
                self._ended.set_exception(error)
            else:
                self._ended.set_result(None)
            await anyio.sleep_forever()

    async def _run(self) -> None:
        identity = self._telemetry.identity
        attributes = {"run": identity.run, "node": identity.node, "model": self._model, "engine": "ray serve llm"}
        async with Bus(identity.node, timing=True) as bus:
            observe_all(bus, self._telemetry)
            subscribe_all(bus, self._callbacks)
            phases = self._phases(bus)
            attributes["phases"] = phase_names(phases)
            replica = await self._begin(bus)
            error: BaseException | None = None
            try:
                async with bus.step(NODE, identity.node, parent=replica.id, attributes=attributes):
                    await run_phases(bus, phases, self.context, self._config, keys=NODE_KEYS)
            except BaseException as failure:
                error = failure
                raise
            finally:
                with anyio.CancelScope(shield=True):
                    await replica.end(error=error)

    async def _begin(self, bus: Bus) -> PastStep:
        """Publish the part of the start that was Ray's: scheduling the replica, starting its process, importing."""
        origin, created_ns, now_ns = self._origin, creation_time_ns(), time.time_ns()
        requested_ns = origin.requested_ns
        if requested_ns is None or requested_ns > FIRST_LINE_NS:
            requested_ns = FIRST_LINE_NS  # not known, or by another clock
        link = {} if origin.linked_to is None else {LINKED_TO: origin.linked_to}
        described = described_configuration(self._factors)
        attributes = {"model": self._model, "replica": origin.identity.node, **link, **described}
        replica = PastStep(bus, SERVE, "replica", requested_ns, parent=origin.identity.parent, attributes=attributes)
        await replica.begin()
        if requested_ns < created_ns < FIRST_LINE_NS:
            await publish_past(bus, "ray", "schedule_replica", requested_ns, created_ns, replica.id)
            await publish_past(bus, "ray", "start_worker_process", created_ns, FIRST_LINE_NS, replica.id)
        else:  # Ray had started the process before it was needed
            await publish_past(bus, "ray", "schedule_replica", requested_ns, FIRST_LINE_NS, replica.id)
        await publish_past(bus, "ray", "import_serve_llm", FIRST_LINE_NS, self._imported_ns, replica.id)
        await publish_past(bus, "ray", "init_replica", self._imported_ns, now_ns, replica.id)
        return replica

    def _factors(self) -> Mapping[str, Any]:
        """Return the factors of the replica's configuration."""
        environment = {**os.environ, **(self.context.get(ENGINE_ENV) or {})}
        engine = engine_factors(self._observer, self.context.get(ENGINE_ARGS) or {}, environment)
        return {"model": self._model, "engine": self._observer.name, "launcher": "ray serve llm", **engine}

    def _phases(self, bus: Bus) -> Sequence[Phase]:
        def taken_over(context: Context) -> bool:
            return bool(context.get(SKIP_DEFAULT))

        async def download(context: Context) -> None:
            await self._download(bus)

        async def engine(context: Context) -> None:
            await self._start_engine(bus, context)

        return (
            Phase(name="pre_initialization", before=PreInitialization),
            Phase(name="custom_initialization", before=CustomInitialization, applies=taken_over),
            Phase(name="placement_group", after=PostPlacementGroup),
            Phase(name=DOWNLOAD, before=PreDownload, work=download, after=PostDownload),
            Phase(name=ENGINE_START, before=PreEngineInit, work=engine, after=PostEngineInit),
            Phase(name="post_initialization", before=PostInitialization),
        )

    async def _download(self, bus: Bus) -> None:
        async with bus.step(RAY, "init_node"):  # Ray's name of its download to all nodes of the replica
            await self._work_of_ray(DOWNLOAD)

    async def _start_engine(self, bus: Bus, context: Context) -> None:
        attributes = {"model": self._model, **announced_steps(self._observer)}
        async with bus.step(ENGINE_INIT, self._observer.name, attributes=attributes) as step:
            given = context[ENGINE_ENV]
            found = {**os.environ, **given}
            env = {**given, **self._observer.environment(self._telemetry, found, context[ENGINE_ARGS])}
            os.environ.update(env | {"TRACEPARENT": self._telemetry.identity.traceparent(step.id)})
            stop = self._telemetry.relay.listen(self._engine_listener(step.id))
            try:
                async with self._observer.relayed_steps(bus, self._telemetry.relay):
                    context[ENGINE] = await self._work_of_ray(ENGINE_START)
                    if self._engine_made_ns is not None:
                        now_ns = time.time_ns()
                        await publish_past(bus, "ray", "init_serve_engine", self._engine_made_ns, now_ns, step.id)
            finally:
                stop()

    async def _work_of_ray(self, phase: str) -> Any:
        self._begun[phase].set_result(None)
        return await asyncio.wrap_future(self._done[phase])

    def _engine_listener(self, step: str) -> Callable[[object], None]:
        """Return a listener that reports the engine's start as done when the engine's outermost step ends."""

        def receive(notice: object) -> None:
            if not isinstance(notice, StepNotice) or notice.event != "ended":
                return
            if (notice.parent, notice.name) == (step, self._observer.outermost_step):
                self._engine_made_ns = notice.time_ns
                if self.reports_engine:
                    return
                if notice.error is None:
                    self.finish(ENGINE_START)
                else:
                    self.fail(EngineError(notice.error))

        return receive
