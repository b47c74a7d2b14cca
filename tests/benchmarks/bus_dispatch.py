"""What a publish costs, against a bare loop of awaits in the same run."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import threading
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any
from unittest.mock import patch

import anyio

from phasebus.bus import Bus, Context, StepKind
from phasebus.initializer.pipeline.wiring import observe_all
from phasebus.telemetry import Telemetry
from tests.benchmarks.measuring import Case, Number, Table, compare, per_call

Handlers = Sequence[Callable[..., Awaitable[object]]]

COUNTS = (0, 1, 10, 100)
ROUNDS = 60


@dataclass(frozen=True, slots=True)
class Happened:
    number: int = 0


EVENT = Happened()


async def bare(handlers: Handlers, event: object) -> None:
    """What the bus is compared with."""
    for handler in handlers:
        await handler(event)


def plain() -> Callable[..., Any]:
    async def handler(event: object) -> None: ...

    return handler


def viewing() -> Callable[..., Any]:
    async def handler(event: object, context: Context) -> None: ...

    return handler


def writing() -> Callable[..., Any]:
    async def handler(event: object, context: Context) -> None:
        context["key"] = 1

    return handler


def returning() -> Callable[..., Any]:
    async def handler(event: object) -> int:
        return 1

    return handler


def synchronous() -> Callable[..., Any]:
    def handler(event: object) -> None: ...

    return handler


@dataclass(frozen=True)
class Row:
    name: str
    handler: Callable[[], Callable[..., Any]]
    marks: dict[int, float]
    timing: bool = False
    given: bool = True


ROWS = [
    Row("handler(event)", plain, {0: 1.6, 1: 2.6, 10: 1.4, 100: 1.2}),
    Row("handler(event), returns a value", returning, {1: 4.0, 10: 3.0, 100: 2.7}),
    Row("handler(event, context), writes nothing", viewing, {1: 3.3, 10: 2.5, 100: 2.4}),
    Row("writes one key, committed, with history", writing, {1: 5.0, 10: 5.0, 100: 5.0}),
    Row("handler(event), with timing and stats", plain, {1: 4.0, 10: 2.5, 100: 2.5}, timing=True),
    Row("synchronous handler(event)", synchronous, {10: 2.0}),
    Row("handler(event, context), the bus makes the context", viewing, {}, given=False),
]


async def _dispatch() -> Table:
    table = Table(
        "Publishing to no-op subscribers: ratio to `for h in handlers: await h(event)` (time of one publish)",
        ["subscribers", *map(str, COUNTS)],
        notes=[
            f"Medians of {ROUNDS} rounds in which all cells and their yardsticks take turns.",
            "One context is given to all publishes of a round, as the events of a start-up share one.",
            "What it costs to have the bus make one for each publish is the last row.",
            "A publish has fixed costs, in bare awaits: 0.5 for the context variable that makes parents exact, 0.2 for what it",
            "holds, 0.3 for the view. With timing, 0.4 for two readings of the clock and 0.5 for the outcome that has them.",
            "A ratio differs by 8 % between runs while other processes use the machine.",
        ],
    )
    cases = [(row, n, _case(row, n)) for row in ROWS for n in COUNTS if n or n in row.marks]
    measured = await compare([case for *_, case in cases], ROUNDS)
    results = {(row.name, count): result for (row, count, _), result in zip(cases, measured, strict=True)}
    for row in ROWS:
        cells: list[Number | None] = []
        for count in COUNTS:
            result = results.get((row.name, count))
            mark = row.marks.get(count)
            cells.append(None if result is None else Number(result.ratio, "x", mark, per_call(result.seconds)))
        table.rows.append([row.name, *cells])
    return table


def _case(row: Row, count: int) -> Case:
    repeats = max(4, 400 // max(1, count))
    bus = Bus(timing=row.timing)
    for handler in [
        row.handler() for _ in range(count)
    ]:  # all before the first is subscribed: as close in memory as those below
        bus.subscribe(Happened, handler)
    handlers = [plain() for _ in range(count)]

    def publish() -> Callable[[], Awaitable[object]]:
        return partial(bus.publish, EVENT, Context() if row.given else None)

    return Case(partial(bare, handlers, EVENT), publish, repeats)


async def _history() -> Table:
    """Whether a publish costs the same whatever the history holds, and how much memory it takes."""
    size = 100_000
    handlers = [plain() for _ in range(10)]
    full, short, none = (Bus(history=history) for history in (size, 100, 0))
    for bus in (full, short, none):
        for handler in handlers:
            bus.subscribe(Happened, handler)
    events = [Happened(number) for number in range(size)]
    gc.collect()
    tracemalloc.start()
    for event in events:
        await full.publish(event)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    for event in events[:100]:
        await short.publish(event)
    cases = [
        Case(partial(short.publish, EVENT), lambda: partial(full.publish, EVENT), 200),
        Case(partial(none.publish, EVENT), lambda: partial(full.publish, EVENT), 200),
    ]
    flat, kept = await compare(cases, ROUNDS)
    return Table(
        "The history: 10 subscribers",
        ["", ""],
        [
            ["a publish at 100,000 events kept, to one at 100", Number(flat.ratio, "x", 1.1, per_call(flat.seconds))],
            ["the same, to one with the history off", Number(kept.ratio, "x", None, per_call(kept.bare_seconds))],
            ["memory for an event kept, beyond the event", Number(held / size, " bytes", 200)],
        ],
        ["Flat within noise is taken as 10 %. Memory as tracemalloc counts it."],
    )


def _asleep(never: anyio.Event) -> Callable[..., Any]:
    async def observer(event: Happened) -> None:
        await never.wait()

    return observer


def _blocked(never: threading.Event) -> Callable[..., Any]:
    def observer(event: Happened) -> None:
        never.wait()

    return observer


async def _turn(event: Happened) -> None:
    await anyio.lowlevel.checkpoint()


async def _streams() -> Table:
    """What an event costs from its publish to the reader of a stream, beside a memory object stream of anyio."""
    async with Bus() as bus, bus.stream(Happened) as stream:
        send, receive = anyio.create_memory_object_stream[Happened](1_000)

        async def through_memory_stream() -> None:
            await send.send(EVENT)
            await receive.receive()

        async def through_bus() -> None:
            await bus.publish(EVENT)
            await anext(stream)

        (result,) = await compare([Case(through_memory_stream, lambda: through_bus, 200)], ROUNDS)
        send.close()
        receive.close()
    return Table(
        "An event from its publish to the reader of a stream",
        ["", ""],
        [["ratio to send and receive of anyio", Number(result.ratio, "x", 1.0, per_call(result.seconds))]],
        notes=["anyio lets the event loop turn at both ends; the bus does so when half of the buffer was filled."],
    )


async def _observed() -> Table:
    """What a step costs on a bus with the built-in observers, beside one without any."""
    kind = StepKind("work")

    async def step(bus: Bus) -> None:
        async with bus.step(kind, "a"):
            await anyio.lowlevel.checkpoint()

    async with AsyncExitStack() as stack:
        state = stack.enter_context(TemporaryDirectory())
        stack.enter_context(patch.dict(os.environ, PHASEBUS_STATE_DIR=state))
        telemetry = await stack.enter_async_context(Telemetry(port=None, environment={}))
        observed, alone = [await stack.enter_async_context(Bus()) for _ in range(2)]
        observe_all(observed, telemetry)
        (result,) = await compare([Case(partial(step, alone), lambda: partial(step, observed), 100)], 20)
    return Table(
        "A step, start and end, with the built-in observers (status, timeline, journal, metrics, spans)",
        ["", ""],
        [["ratio to a step on a bus without observers", Number(result.ratio, "x", None, per_call(result.seconds))]],
        notes=["The observers run beside the publisher: in threads of one process their time counts as well."],
    )


async def _stalled() -> Table:
    """What an observer that has stopped looking costs the publisher."""
    columns = [await _floods(_turn), await _floods(plain())]
    table = Table(
        "10,000 events to a stalled observer: the publisher's time, to that without one (added to each event)",
        ["observer", "subscriber lets the loop turn", "subscriber does nothing"],
        notes=[
            "The mark is for a publisher whose subscriber lets the event loop turn once, so that observers could run.",
            "The last column is the bare price of putting an event into a buffer.",
            "Buffered events make Python's garbage collector examine all objects of the process more often: that is a third of it.",
        ],
    )
    for name in columns[0]:
        (ratio, added), (bare_ratio, bare_added) = (column[name] for column in columns)
        table.rows.append(
            [
                name,
                Number(ratio, "x", 1.2, f"+{per_call(added)}"),
                Number(bare_ratio, "x", None, f"+{per_call(bare_added)}"),
            ]
        )
    return table


async def _floods(subscriber: Callable[..., Any], rounds: int = 5) -> dict[str, tuple[float, float]]:
    """Return, by observer, the ratio to no observer and the seconds added to an event: medians of `rounds`."""
    ratios: dict[str, list[float]] = {}
    added: dict[str, list[float]] = {}
    for _ in range(rounds):
        alone, *others = (await _flood(subscriber)).items()
        for name, seconds in others:
            ratios.setdefault(name, []).append(seconds / alone[1])
            added.setdefault(name, []).append(max(0.0, seconds - alone[1]))
    return {name: (median(ratios[name]), median(added[name])) for name in ratios}


async def _flood(subscriber: Callable[..., Any]) -> dict[str, float]:
    """Return the seconds of an event, of 10,000, with each sort of observer; they take turns after 500 events each."""
    asleep, blocked = anyio.Event(), threading.Event()
    sorts: dict[str, tuple[Callable[..., Any], int] | None] = {
        "none": None,
        "asynchronous, asleep; every event buffered": (_asleep(asleep), 20_000),
        "asynchronous, asleep; room for 100, the rest dropped": (_asleep(asleep), 100),
        "in a thread, blocked; every event buffered": (_blocked(blocked), 20_000),
    }
    events = [Happened(number) for number in range(10_000)]
    seconds = dict.fromkeys(sorts, 0.0)
    async with AsyncExitStack() as stack:
        buses = {name: await stack.enter_async_context(Bus()) for name in sorts}
        for name, bus in buses.items():
            bus.subscribe(Happened, subscriber)
            if (sort := sorts[name]) is not None:
                bus.observe(Happened, sort[0], buffer=sort[1])
            await bus.publish(events[0])
        await anyio.wait_all_tasks_blocked()
        for start in range(0, len(events), 500):
            for name, bus in buses.items():
                began = perf_counter()
                for event in events[start : start + 500]:
                    await bus.publish(event)
                seconds[name] += (perf_counter() - began) / len(events)
        asleep.set()
        blocked.set()
    return seconds


def tables() -> Iterator[Table]:
    yield asyncio.run(_dispatch())
    yield asyncio.run(_history())
    yield asyncio.run(_streams())
    yield asyncio.run(_observed())
    logging.getLogger("phasebus.bus").setLevel(logging.ERROR)  # that observers are too slow is what is measured
    yield asyncio.run(_stalled())
