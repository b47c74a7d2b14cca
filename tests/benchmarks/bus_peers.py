"""The bus beside other Python libraries that deliver events, each doing the nearest thing it can."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

from phasebus.bus import Bus, Context
from tests.benchmarks.bus_dispatch import EVENT, Happened, bare, plain, synchronous, viewing
from tests.benchmarks.measuring import Call, Case, Number, Table, compare, per_call

COUNTS = (1, 10, 100)
ROUNDS = 15


@dataclass(frozen=True)
class Peer:
    """A library, and how it is made to do the same.

    Attributes:
        name: The distribution, for its version; or ours.
        connect: Connects so many no-op handlers and returns what publishes once; the stack ends what it started.
        does: What that is.
        cannot: What of ordered awaited dispatch, a context that subscribers change, a record of who changed what,
            error policies and timeouts, it does not do.
        repeats: How often it publishes in one round; fewer for those that take long.
    """

    name: str
    connect: Callable[[int, AsyncExitStack], Call]
    does: str
    cannot: str
    repeats: int = 100


def _phasebus(count: int, stack: AsyncExitStack) -> Call:
    bus = Bus()
    for handler in [plain() for _ in range(count)]:  # close to one another in memory, as those of aiosignal are
        bus.subscribe(Happened, handler)
    return partial(bus.publish, EVENT)


def _phasebus_with_context(count: int, stack: AsyncExitStack) -> Call:
    bus, context = Bus(), Context()
    for handler in [viewing() for _ in range(count)]:
        bus.subscribe(Happened, handler)
    return partial(bus.publish, EVENT, context)


def _aiosignal(count: int, stack: AsyncExitStack) -> Call:
    from aiosignal import Signal

    signal = Signal(object())
    signal.extend(plain() for _ in range(count))
    signal.freeze()
    return partial(signal.send, EVENT)


def _blinker(count: int, stack: AsyncExitStack) -> Call:
    from blinker import Signal

    def handler() -> Callable[..., Awaitable[None]]:
        async def receive(sender: object) -> None: ...

        return receive

    signal = Signal()
    for _ in range(count):
        signal.connect(handler(), weak=False)
    return partial(signal.send_async, EVENT)


def _pluggy(count: int, stack: AsyncExitStack) -> Call:
    import pluggy

    specification, implementation = pluggy.HookspecMarker("bench"), pluggy.HookimplMarker("bench")

    class Specification:
        @specification  # type: ignore[untyped-decorator]
        def on_event(self, event: object) -> None:
            """Hear of an event."""

    class Plugin:
        @implementation  # type: ignore[untyped-decorator]
        def on_event(self, event: object) -> None: ...

    manager = pluggy.PluginManager("bench")
    manager.add_hookspecs(Specification)
    for _ in range(count):
        manager.register(Plugin())

    async def publish() -> None:
        manager.hook.on_event(event=EVENT)

    return publish


def _pyee(count: int, stack: AsyncExitStack) -> Call:
    from pyee.asyncio import AsyncIOEventEmitter

    emitter = AsyncIOEventEmitter()
    for _ in range(count):
        emitter.on("event", plain())

    async def publish() -> None:
        emitter.emit("event", EVENT)
        await emitter.wait_for_complete()

    return publish


def _psygnal(count: int, stack: AsyncExitStack) -> Call:
    from psygnal import Signal

    class Emitter:
        happened = Signal(object)

    emitter = Emitter()
    kept = [synchronous() for _ in range(count)]  # it holds them weakly
    for handler in kept:
        emitter.happened.connect(handler)

    async def publish(kept: Any = kept) -> None:
        emitter.happened.emit(EVENT)

    return publish


def _bubus(count: int, stack: AsyncExitStack) -> Call:
    os.environ.setdefault("BUBUS_LOGGING_LEVEL", "ERROR")
    from bubus import BaseEvent, EventBus

    Something: Any = type("Something", (BaseEvent,), {"__module__": __name__})  # noqa: N806
    bus = EventBus(name=f"bench_{count}", max_history_size=50)
    stack.push_async_callback(bus.stop, clear=True)  # its loop ignores cancellation
    for number in range(count):
        handler = plain()
        handler.__name__ = f"handler_{number}"
        bus.on(Something, handler)

    async def publish() -> None:
        await bus.dispatch(Something())

    return publish


PEERS = [
    Peer("phasebus", _phasebus, "publish, handler(event)", "-"),
    Peer("phasebus", _phasebus_with_context, "publish, handler(event, context)", "-"),
    Peer("aiosignal", _aiosignal, "send", "context, record, error policy, timeout, typed events, observers"),
    Peer("blinker", _blinker, "send_async", "order, context, record, error policy, timeout, observers"),
    Peer("pluggy", _pluggy, "call a hook", "await, context, record, error policy, timeout, observers"),
    Peer("pyee", _pyee, "emit, wait_for_complete", "order, context, record, timeout; errors go to an event; trio", 20),
    Peer("psygnal", _psygnal, "emit", "await, context, record, error policy, timeout, observers"),
    Peer("bubus", _bubus, "dispatch, await", "context, record, error policy, observers; trio; a flat history", 2),
]


async def _compare() -> Table:
    table = Table(
        "Peers: ratio to `for h in handlers: await h(event)` (time of one publish); no-op handlers",
        ["", "does", *map(str, COUNTS), "cannot do"],
        notes=[
            "Handlers are synchronous where a library cannot await them (pluggy, psygnal).",
            "bubus keeps 50 events here; without that bound its time grows with its history.",
        ],
    )
    async with AsyncExitStack() as stack:
        cases = []
        for peer in PEERS:
            for count in COUNTS:
                handlers = [plain() for _ in range(count)]
                publish = peer.connect(count, stack)
                cases.append(Case(partial(bare, handlers, EVENT), partial(_same, publish), peer.repeats))
        results = iter(await compare(cases, ROUNDS))
    for peer in PEERS:
        numbers = [
            Number(result.ratio, "x", None, per_call(result.seconds)) for result in (next(results) for _ in COUNTS)
        ]
        table.rows.append([f"{peer.name} {version(peer.name)}", peer.does, *numbers, peer.cannot])
    return table


def _same(publish: Call) -> Call:
    return publish


def tables() -> Iterator[Table]:
    """Measure, and return what there is to print."""
    yield asyncio.run(_compare())
