"""What a million publishes of each kind leave in memory."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from collections.abc import Iterator
from time import perf_counter

from phasebus.bus import Bus
from tests.benchmarks.measuring import Number, Table, per_call
from tests.support.bus_publishes import KINDS, Kind, changing_subscribers, streams

EVENTS = 1_000_000
FEWER: dict[Kind, int] = {streams: 100_000, changing_subscribers: 100_000}
"""How many events of the kinds that take longer, so that all take a minute. With 1,000,000 the result was the same."""

WARM_UP = 30_000
"""How many events fill the bounded histories and buffers before the first measurement."""


async def _left(kind: Kind, events: int) -> tuple[int, int, float]:
    """Return how many blocks of memory and how many objects are left of so many `events`, and the seconds of one."""
    each = KINDS[kind]
    async with Bus(history=10, timing=True) as bus:
        publish = await kind(bus)
        for _ in range(WARM_UP // each):
            await publish()
        blocks, objects = _held()
        start = perf_counter()
        for _ in range(events // each):
            await publish()
        seconds = perf_counter() - start
        blocks_after, objects_after = _held()
    return blocks_after - blocks, objects_after - objects, seconds / events


def _held() -> tuple[int, int]:
    gc.collect()
    return sys.getallocatedblocks(), len(gc.get_objects())


def tables() -> Iterator[Table]:
    logging.getLogger("phasebus.bus").setLevel(logging.CRITICAL)
    table = Table(
        "Memory: what is left of many events, by kind of publish",
        ["", "events", "blocks of memory", "objects", "one event"],
        notes=[
            "A block is a piece of memory that Python has allocated (`sys.getallocatedblocks`); up to 100 are noise.",
        ],
    )
    for kind in KINDS:
        events = FEWER.get(kind, EVENTS)
        blocks, objects, seconds = asyncio.run(_left(kind, events))
        table.rows.append(
            [
                kind.__name__.replace("_", " "),
                f"{events:,}",
                Number(max(0, blocks), "", 100),
                Number(max(0, objects), "", 100),
                per_call(seconds),
            ]
        )
    yield table
