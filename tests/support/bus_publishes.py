"""Ways to publish, each of which has to leave memory where it was."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from phasebus.bus import Bus, Context, StepEvent, StepKind

Kind = Callable[[Bus], Coroutine[Any, Any, Callable[[], Awaitable[Any]]]]
"""Prepares a bus, and returns what publishes on it."""

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


KINDS: dict[Kind, int] = {
    plain: 1,
    shared_context: 1,
    nested: 2,
    isolated_errors: 1,
    observers: 1,
    steps: 4,
    streams: 1,
    changing_subscribers: 1,
}
"""The kinds, and how many events each publishes at a time."""
