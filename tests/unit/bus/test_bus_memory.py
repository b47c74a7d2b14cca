"""Publishing leaves memory where it was, whatever is published and however it ends."""

from __future__ import annotations

import gc
import logging
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from phasebus import bus
from phasebus.bus import Bus
from tests.support.bus_publishes import KINDS

pytestmark = pytest.mark.anyio

FIRST, TIMES, ROUNDS = 300, 100, 4
ALLOWED = 100 * TIMES
CALLS_OF_THE_BUS = tracemalloc.Filter(True, str(Path(bus.__file__).parent / "*"), all_frames=True)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Of anyio's backends, each once: uvloop allocates nothing in Python."""
    return str(request.param)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
async def test_many_publishes_leave_memory_where_it_was(kind: Any) -> None:
    grown = await _growth(kind, _all_memory, frames=1)
    if min(grown) >= ALLOWED:  # other threads of this process allocate as well: look closer, which is slow
        grown = await _growth(kind, _memory_of_the_bus, frames=12)
    assert min(grown) < ALLOWED, f"{grown} bytes are left of {TIMES} publishes"


async def _growth(kind: Any, size: Callable[[], int], *, frames: int) -> list[int]:
    logging.getLogger("phasebus.bus").setLevel(logging.CRITICAL)  # pytest keeps what is logged
    gc.freeze()  # what other tests left is not searched for garbage
    try:
        async with Bus(history=10, timing=True) as opened:
            publish = await kind(opened)
            tracemalloc.start(frames)  # before the bounded histories fill, so that what they drop later counts, too
            for _ in range(FIRST):
                await publish()
            sizes = [size()]
            for _ in range(ROUNDS):
                for _ in range(TIMES):
                    await publish()
                sizes.append(size())
    finally:
        tracemalloc.stop()
        gc.unfreeze()
        logging.getLogger("phasebus.bus").setLevel(logging.NOTSET)
    return [after - before for before, after in pairwise(sizes)]


def _all_memory() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def _memory_of_the_bus() -> int:
    gc.collect()
    return sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces([CALLS_OF_THE_BUS]).traces)
