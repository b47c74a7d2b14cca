"""What runs on every node: an actor with a bus, observers and an engine of its own."""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio
from anyio.from_thread import start_blocking_portal

from phasebus.bus import Bus, Stage
from phasebus.initializer.assembly import observe_all
from phasebus.initializer.cluster.hub.start import told
from phasebus.initializer.cluster.merge import NodeChange, changes_of, snapshot
from phasebus.initializer.config import LLMConfig
from phasebus.initializer.node import Node, initialize_node
from phasebus.initializer.phases import PreEngineInit
from phasebus.initializer.ray.actors import node_address
from phasebus.initializer.ray.calls import answer
from phasebus.initializer.ray.raylet import end_with_the_raylet
from phasebus.telemetry import RunIdentity, Telemetry
from phasebus.telemetry.journal import journal_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a node that is ready tells of itself.

    Attributes:
        changes: What callbacks changed in its context, in order.
        context: What of its context can be pickled.
        engine: Whether it has an engine.
    """

    changes: Sequence[NodeChange] = ()
    context: Mapping[str, Any] = field(default_factory=dict)
    engine: bool = False


class NodeActor:
    """A node; made an actor, with threads, by `phasebus.initializer.ray.actors`.

    Its bus runs in a thread of its own, so that it answers whatever it is doing.

    Args:
        identity: Who it is, and below which step of which trace it starts.
        environment: Variables of the driver that hold here as well, where they are not set already.
    """

    def __init__(self, identity: RunIdentity, environment: Mapping[str, str]) -> None:
        for name, value in environment.items():
            os.environ.setdefault(name, value)
        if identity.parent is not None:
            os.environ["TRACEPARENT"] = identity.traceparent(identity.parent)
        self._identity = identity
        self._portal_manager = start_blocking_portal()
        self._portal = self._portal_manager.__enter__()
        self._life: Future[None] | None = None
        self._ready: Future[Report] = Future()
        self._ended = threading.Event()
        self._node: Node | None = None
        end_with_the_raylet()

    def where(self) -> tuple[str, int]:
        """Return the name of the machine and the id of the process."""
        return platform.node(), os.getpid()

    def journal(self) -> str:
        """Return where its journal is going to be."""
        return str(journal_of(self._identity))

    def ping(self) -> None:
        """Return, which is what is asked for."""

    def start(self, config: LLMConfig, given: Mapping[str, Any], others: Sequence[Any], hub: Any) -> Report:
        """Start the node and return once it is ready; it lives until it is told to stop.

        Args:
            config: What is started.
            given: What the context holds at first over the configuration's values.
            others: References to the answers of nodes that have to be ready before the engine starts.
            hub: Ray's handle of the hub; None without one.
        """
        self._life = self._portal.start_task_soon(self._settle, config, given, others, hub)
        return self._ready.result()

    def generate(self, prompt: str, sampling: Mapping[str, Any]) -> str:
        """Return what the model makes of `prompt`."""
        if self._node is None or self._node.engine is None:
            raise RuntimeError("this node has no engine")
        engine = self._node.engine

        async def ask() -> str:
            return await engine.generate(prompt, **sampling)

        return self._portal.call(ask)

    def stop(self) -> None:
        """End the node in order, or its start; what was seen of it has been handed on when this returns."""
        if self._life is not None:
            self._life.cancel()
            self._ended.wait()

    async def _settle(self, config: LLMConfig, given: Mapping[str, Any], others: Sequence[Any], hub: Any) -> None:
        """Live, and see to it that `start` has an answer and `stop` an end, whatever comes."""
        try:
            await self._live(config, given, others, hub)
        except BaseException as error:
            if not self._ready.done():
                self._ready.set_exception(error if isinstance(error, Exception) else CancelledError())
            raise
        finally:
            self._ended.set()

    async def _live(self, config: LLMConfig, given: Mapping[str, Any], others: Sequence[Any], hub: Any) -> None:
        telemetry = Telemetry(self._identity, host=config.service.host, port=0)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(telemetry)
            bus = Bus(self._identity.node, timing=True)
            journal = observe_all(bus, telemetry)
            telling = told(hub, self._identity.node, journal, dropped=partial(_dropped, bus), target=_target(telemetry))
            await stack.enter_async_context(telling)
            await stack.enter_async_context(bus)
            if others:
                bus.subscribe(PreEngineInit, _waiting_for(others), name="wait_for_other_nodes", stage=Stage.LATE)
            async with await initialize_node(config, telemetry=telemetry, bus=bus, given=given) as self._node:
                context = self._node.context
                self._ready.set_result(
                    Report(
                        changes=changes_of(context),
                        context=snapshot(context, [key for key in context if key != "engine"]),
                        engine=self._node.engine is not None,
                    )
                )
                await anyio.sleep_forever()


def _dropped(bus: Bus) -> int:
    return sum(each.drops for each in bus.stats() if each.name == "JournalObserver")


def _target(telemetry: Telemetry) -> str | None:
    """Return where Prometheus finds the metrics of this process, ``host:port``."""
    service = telemetry.service
    if service is None:
        return None
    everywhere = service.host in ("0.0.0.0", "::")  # noqa: S104
    return f"{node_address() if everywhere else service.host}:{service.port}"


def _waiting_for(references: Sequence[Any]) -> Any:
    async def wait_for_other_nodes(event: PreEngineInit) -> None:
        for reference in references:
            await answer(reference)

    return wait_for_other_nodes
