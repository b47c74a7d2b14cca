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
from tests.support.bus_publishes import KINDS, Kind

EVENTS = 1_000_000
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
        f"Memory: what {EVENTS:,} events leave, by kind of publish",
        ["", "blocks of memory", "objects", "one event"],
        notes=[
            "A block is what Python allocated (`sys.getallocatedblocks`); a leak of one block an event would show as 1,000,000.",
            "Up to 3,000 blocks are noise: the contents of bounded histories and buffers differ in size.",
        ],
    )
    for kind in KINDS:
        blocks, objects, seconds = asyncio.run(_left(kind, EVENTS))
        table.rows.append(
            [
                kind.__name__.replace("_", " "),
                Number(max(0, blocks), "", 3_000),
                Number(max(0, objects), "", 3_000),
                per_call(seconds),
            ]
        )
    yield table
