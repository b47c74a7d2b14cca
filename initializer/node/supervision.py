"""Supervision of a ready node: detecting the death of its engine."""

from __future__ import annotations

import logging
from typing import Any

import anyio

from phasebus.bus import Bus
from phasebus.initializer.node.events import EngineDied
from phasebus.initializer.node.node import Node
from phasebus.initializer.node.probe import probe_engine
from phasebus.initializer.pipeline.control_flow import errors_only
from phasebus.telemetry import Telemetry, redact

logger = logging.getLogger("phasebus.node")

_PROBE_INTERVAL_SECONDS = 2.0


async def engine_died(
    node: Node, config: Any, bus: Bus, telemetry: Telemetry, *, probe_seconds: float = _PROBE_INTERVAL_SECONDS
) -> str:
    """Wait until the engine of a ready node has died; mark the node as not ready, and return the reason.

    An error of an `EngineDied` callback is logged, as no caller waits for it.

    Args:
        node: The node. An engine that a callback provided is supervised if it has a method `probe`.
        config: The configuration the node was started with.
        bus: The bus that `EngineDied` is published on.
        telemetry: The status and metrics that report whether the node is ready.
        probe_seconds: The pause between two probes of the engine, in seconds.
    """
    why = await _death_of(node.engine, probe_seconds)
    telemetry.status.settle(why)
    telemetry.metrics.ready.set(0)
    try:
        with errors_only():
            await bus.publish(EngineDied(config=config, error=why), node.context)
    except Exception:
        logger.exception("an EngineDied callback failed")
    return why


async def _death_of(engine: object, probe_seconds: float) -> str:
    """Wait until `engine` has died; return the reason."""
    while True:
        await anyio.sleep(probe_seconds)
        try:
            with errors_only():
                await probe_engine(engine)
        except Exception as error:  # noqa: BLE001  # any error of the probe means that the engine has died
            return redact(f"the engine has died: {str(error).partition(chr(10))[0] or type(error).__name__}")
