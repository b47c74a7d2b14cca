"""A node that is ready, looked after: whether its engine still lives."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from phasebus.bus import Bus
from phasebus.initializer.node.events import EngineDied
from phasebus.initializer.node.node import Node
from phasebus.telemetry import Telemetry, redact

logger = logging.getLogger("phasebus.node")

_LOOK_SECONDS = 2.0


async def engine_died(node: Node, config: Any, bus: Bus, telemetry: Telemetry) -> str:
    """Return why the engine of a node that was ready is gone, if that happens; the node is told to be ready no more.

    What a callback of `EngineDied` raises is logged: there is nobody to hear it.

    Args:
        node: The node. An engine that callbacks have provided is looked after if it has a method `probe`, as ours have.
        config: What the node was started with.
        bus: Where `EngineDied` is published.
        telemetry: Whose status and metrics say whether the node is ready.
    """
    probe: Callable[[], Awaitable[None]] | None = getattr(node.engine, "probe", None)
    while True:
        await anyio.sleep(_LOOK_SECONDS)
        if probe is None:
            continue
        try:
            await probe()
        except Exception as error:  # noqa: BLE001  # whatever it is, it is the end of the engine
            why = redact(f"the engine has died: {str(error).partition(chr(10))[0] or type(error).__name__}")
            break
    telemetry.status.settle(why)
    telemetry.metrics.ready.set(0)
    try:
        await bus.publish(EngineDied(config=config, error=why), node.context)
    except Exception:
        logger.exception("a callback failed when the engine had died")
    return why
