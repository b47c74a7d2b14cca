"""A node that is ready, and an engine that dies."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest

from phasebus.bus import Bus, Context
from phasebus.initializer.node.node import Node
from phasebus.initializer.node.supervision import engine_died
from phasebus.telemetry import Telemetry

pytestmark = pytest.mark.anyio


class Engine:
    """An engine that answers so many probes."""

    def __init__(self, probes: int) -> None:
        self.left = probes

    async def probe(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise ValueError("the core is gone\nand more of it")

    async def generate(self, prompt: str, **sampling: Any) -> str:
        return ""

    async def close(self) -> None:
        """Do nothing."""


QUICKLY = 0.01


def node_with(engine: Any) -> Node:
    return Node(engine, Context({"kept": 1}), AsyncExitStack())


async def test_the_death_of_an_engine_is_published_and_the_node_not_ready() -> None:
    published: list[tuple[str, Any]] = []
    telemetry = Telemetry(port=None)
    telemetry.status.settle()
    async with Bus() as bus:

        def look(phase: str, config: Any, data: Any) -> None:
            published.append((phase, data["kept"]))

        bus.subscribe(None, look)
        why = await engine_died(node_with(Engine(3)), None, bus, telemetry, probe_seconds=QUICKLY)
    assert why == "the engine has died: the core is gone"
    assert published == [("engine_died", 1)]
    assert not telemetry.status.ready
    assert telemetry.status.describe()["error"] == why


async def test_an_engine_died_callback_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with Bus() as bus:

        async def fail(phase: str, config: Any, data: Any) -> None:
            raise ValueError("boom")

        bus.subscribe(None, fail)
        assert await engine_died(node_with(Engine(0)), None, bus, Telemetry(port=None), probe_seconds=QUICKLY)
    assert "an EngineDied callback failed" in caplog.text


@pytest.mark.parametrize("engine", [Engine(10**9), object()])
async def test_an_engine_that_lives_or_has_no_probe_is_not_reported(engine: Any) -> None:
    with anyio.move_on_after(0.05) as scope:
        async with Bus() as bus:
            await engine_died(node_with(engine), None, bus, Telemetry(port=None), probe_seconds=QUICKLY)
    assert scope.cancelled_caught
