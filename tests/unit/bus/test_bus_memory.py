"""Publishing leaves memory where it was, whatever is published and however it ends."""

from __future__ import annotations

import gc
import logging
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from phasebus.bus import Bus, Context, StepEvent, StepKind

pytestmark = pytest.mark.anyio

TIMES = 500
WORK = StepKind("work")


class Ping:
    pass


async def plain(bus: Bus) -> Callable[[], Awaitable[Any]]:
    async def subscriber(event: Ping) -> int:
        return 1

    bus.subscribe(Ping, subscriber)
    return lambda: bus.publish(Ping())


async def shared_context(bus: Bus) -> Callable[[], Awaitable[Any]]:
    context = Context(history=100)

    def write(event: Ping, context: Context) -> dict[str, int]:
        context["a"] = 1
        return {"b": 2}

    bus.subscribe(Ping, write)
    return lambda: bus.publish(Ping(), context)


async def nested(bus: Bus) -> Callable[[], Awaitable[Any]]:
    async def again(event: Ping) -> None:
        await bus.publish("inner")

    bus.subscribe(Ping, again)
    return lambda: bus.publish(Ping())


async def isolated_errors(bus: Bus) -> Callable[[], Awaitable[Any]]:
    error = ValueError("one")

    def broken(event: Ping, context: Context) -> None:
        context["a"] = 1
        raise error

    bus.subscribe(Ping, broken, on_error="isolate")
    return lambda: bus.publish(Ping())


async def observers(bus: Bus) -> Callable[[], Awaitable[Any]]:
    async def look(event: Any) -> None: ...

    bus.observe(Ping, look, buffer=10)
    bus.observe(Ping, lambda event: None, buffer=10, overflow="block")
    return lambda: bus.publish(Ping())


async def steps(bus: Bus) -> Callable[[], Awaitable[Any]]:
    bus.observe(StepEvent, lambda event: None, buffer=10, coalesce=True, min_seconds=1, overflow="block")

    async def step() -> None:
        async with bus.step(WORK, "a") as running:
            await running.progress(1)
            await running.progress(2)

    return step


async def streams(bus: Bus) -> Callable[[], Awaitable[Any]]:
    async def read() -> None:
        async with bus.stream(Ping) as stream:
            await bus.publish(Ping())
            await anext(stream)

    return read


async def changing_subscribers(bus: Bus) -> Callable[[], Awaitable[Any]]:
    async def publish() -> None:
        with bus.subscribe(Ping, lambda event: None):
            await bus.publish(Ping())

    return publish


KINDS = [plain, shared_context, nested, isolated_errors, observers, steps, streams, changing_subscribers]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
async def test_many_publishes_leave_memory_where_it_was(kind: Any) -> None:
    logging.getLogger("phasebus.bus").setLevel(logging.CRITICAL)  # pytest keeps what is logged
    try:
        async with Bus(history=10, timing=True) as bus:
            publish = await kind(bus)
            tracemalloc.start()  # before the bounded histories fill, so that what they drop later counts, too
            for _ in range(TIMES):
                await publish()
            gc.collect()
            before, _ = tracemalloc.get_traced_memory()
            for _ in range(TIMES):
                await publish()
            gc.collect()
            grown = tracemalloc.get_traced_memory()[0] - before
            tracemalloc.stop()
    finally:
        logging.getLogger("phasebus.bus").setLevel(logging.NOTSET)
    assert grown < 100 * TIMES, f"{grown} bytes are left of {TIMES} publishes"
