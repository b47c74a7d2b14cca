"""Running a node: its bus, observers and engine, from the start until it is stopped."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio

from phasebus.bus import Bus, Stage
from phasebus.initializer.cluster.hub.start import forwarding_journal
from phasebus.initializer.cluster.merge import NodeChange, changes_of, snapshot
from phasebus.initializer.engines.optional import url_of
from phasebus.initializer.engines.protocol import EngineError
from phasebus.initializer.node.config import LLMConfig, ServiceConfig
from phasebus.initializer.node.events import PreEngineInit
from phasebus.initializer.node.node import Node, initialize_node
from phasebus.initializer.node.supervision import engine_died
from phasebus.initializer.pipeline.wiring import available_telemetry, observe_all
from phasebus.initializer.ray.actors import node_address
from phasebus.initializer.ray.calls import answer
from phasebus.printable import address_text
from phasebus.telemetry import RunIdentity, Telemetry

_DRAIN_SECONDS = 5.0
"""Maximum time for the observers of a node to process the remaining events at its end, in seconds. It is longer than the
default because all nodes end at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReport:
    """The report of a node that is ready.

    Attributes:
        changes: The changes that callbacks made in its context, in order.
        context: The part of its context that can be pickled.
        engine: Whether it has an engine.
        url: The URL of its engine's server; None without one.
    """

    changes: Sequence[NodeChange] = ()
    context: Mapping[str, Any] = field(default_factory=dict)
    engine: bool = False
    url: str | None = None


class NodeRuntime:
    """Runs a node in an event loop of its own.

    Args:
        identity: The node.
        service: Its HTTP service.
        nodes: The number of nodes that its engine has workers on.

    Attributes:
        ready: A future for other threads: the node's report when it is ready, or the error of its start.
        ended: An event for other threads: set when the node has ended and its telemetry has been flushed.
        node: The node; None until it is ready.
    """

    def __init__(self, identity: RunIdentity, service: ServiceConfig, nodes: int = 1) -> None:
        self._identity = identity
        relay_host = node_address() if nodes > 1 else "127.0.0.1"
        self._telemetry = available_telemetry(
            identity, host=service.host, port=0, relay_host=relay_host, access=service.access
        )
        self.ready: Future[NodeReport] = Future()
        self.ended = threading.Event()
        self.node: Node | None = None

    async def run(self, config: LLMConfig, given: Mapping[str, Any], others: Sequence[Any], hub: Any) -> None:
        """Start the node and run it until cancelled; `ready` and `ended` are set in any case.

        Args:
            config: Its configuration.
            given: Initial values of the context, in place of the configuration's.
            others: References to the reports of nodes that must be ready before the engine starts.
            hub: Ray's handle of the hub; None without one.
        """
        try:
            await self._run(config, given, others, hub)
        except BaseException as error:
            if not self.ready.done():
                self.ready.set_exception(error if isinstance(error, Exception) else CancelledError())
            raise
        finally:
            self.ended.set()

    async def _run(self, config: LLMConfig, given: Mapping[str, Any], others: Sequence[Any], hub: Any) -> None:
        telemetry = self._telemetry
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(telemetry)
            bus = Bus(self._identity.node, timing=True, drain_seconds=_DRAIN_SECONDS)
            journal = observe_all(bus, telemetry)
            forwarding = forwarding_journal(
                hub, self._identity.node, journal, dropped=partial(_dropped, bus), target=_target(telemetry)
            )
            await stack.enter_async_context(forwarding)
            await stack.enter_async_context(bus)
            if others:
                bus.subscribe(PreEngineInit, _waiting_for(others), name="wait_for_other_nodes", stage=Stage.LATE)
            async with await initialize_node(config, telemetry=telemetry, bus=bus, given=given) as self.node:
                context = self.node.context
                self.ready.set_result(
                    NodeReport(
                        changes=changes_of(context),
                        context=snapshot(context, [key for key in context if key != "engine"]),
                        engine=self.node.engine is not None,
                        url=url_of(self.node.engine),
                    )
                )
                await engine_died(self.node, config, bus, telemetry)
                await anyio.sleep_forever()

    async def generate(self, prompt: str, sampling: Mapping[str, Any]) -> str:
        """Return the text that the model generates from `prompt`.

        Raises:
            EngineError: There is no engine.
        """
        if self.node is None or self.node.engine is None:
            raise EngineError(f"the node {self._identity.node!r} has no engine")
        return await self.node.engine.generate(prompt, **sampling)


def _dropped(bus: Bus) -> int:
    return sum(each.drops for each in bus.stats() if each.name == "JournalObserver")


def _target(telemetry: Telemetry) -> str | None:
    """Return the address of the metrics of this process, ``host:port``; None if they are not served."""
    service = telemetry.service
    if service is None:
        return None
    everywhere = service.host in ("0.0.0.0", "::")  # noqa: S104
    return address_text(node_address() if everywhere else service.host, service.port)


def _waiting_for(references: Sequence[Any]) -> Any:
    async def wait_for_other_nodes(event: PreEngineInit) -> None:
        for reference in references:
            await answer(reference)

    return wait_for_other_nodes
