"""`initialize_node`: starts a node, from the name of a model to a running engine."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, Self

import anyio

from phasebus.bus import Bus, Context, subscribe_all
from phasebus.initializer.engines.protocol import Engine
from phasebus.initializer.node.config import LLMConfig
from phasebus.initializer.node.keys import ENGINE
from phasebus.initializer.node.startup import NodeStart
from phasebus.initializer.pipeline.wiring import available_telemetry, observe_all
from phasebus.telemetry import Telemetry


class Node:
    """A node that is ready; an asynchronous context manager that closes it.

    Attributes:
        engine: The engine; None if callbacks replaced the start-up and provided none.
        context: The context that callbacks and phases wrote, with its history.
    """

    def __init__(self, engine: Engine | None, context: Context, resources: AsyncExitStack) -> None:
        self.engine = engine
        self.context = context
        self._resources = resources

    async def close(self) -> None:
        """End the engine and release all resources, also if the caller is cancelled. May be called twice."""
        with anyio.CancelScope(shield=True):  # an engine that is not awaited here is killed without its time to drain
            await self._resources.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def initialize_node(
    config: LLMConfig,
    *,
    telemetry: Telemetry | None = None,
    bus: Bus | None = None,
    given: Mapping[str, Any] | None = None,
) -> Node:
    """Start a node: download the model, reserve resources, start the engine; each phase publishes events on the bus.

    Args:
        config: The configuration of the node, with its callbacks.
        telemetry: An open `Telemetry` for spans, metrics and status; by default a new one for the duration of the start,
            without the HTTP service.
        bus: An open bus; by default a new one for the duration of the start, with the built-in observers.
        given: Initial entries of the context, in place of the configuration's. With a `PLACEMENT_GROUP` among them,
            nothing is reserved.

    Raises:
        PhasebusError: A phase failed; notes name the phase and the callback, if one failed. All resources were released.
        Exception: The error of a callback, with the same notes.
    """
    async with AsyncExitStack() as stack:
        if telemetry is None:
            telemetry = await stack.enter_async_context(available_telemetry(port=None))
        if bus is None:
            bus = await stack.enter_async_context(Bus("node", timing=True))
            observe_all(bus, telemetry)
        subscribe_all(bus, config.callbacks)
        context, resources = await NodeStart(config, bus, telemetry, given or {}).run()
        return Node(context.get(ENGINE), context, resources)
