"""The thread that holds a connection to Ray; its connections themselves are tested with Ray."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio.to_thread import run_sync

from phasebus.initializer.ray.cluster import held_by_a_thread


@pytest.mark.anyio
async def test_a_start_that_is_cancelled_while_ray_starts_shuts_it_down_when_it_has(anyio_backend_name: str) -> None:
    steps: list[str] = []
    connecting: list[Any] = []
    starting, go_on = threading.Event(), threading.Event()

    def start() -> None:
        starting.set()
        go_on.wait()
        steps.append("started")

    async def connect() -> None:
        if anyio_backend_name == "asyncio":
            connecting.append(asyncio.current_task())
        async with held_by_a_thread(start, lambda: steps.append("shut down")):
            await anyio.lowlevel.checkpoint()
            steps.append("connected")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(connect)
        await run_sync(starting.wait)
        threading.Timer(0.05, go_on.set).start()
        for task in connecting:
            task.cancel()  # the loop's own way, which no scope of anyio's shields from
        tasks.cancel_scope.cancel()
    assert steps == ["started", "shut down"]
