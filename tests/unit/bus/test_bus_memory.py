"""Publishing leaves memory where it was, whatever is published and however it ends."""

from __future__ import annotations

import gc
import logging
import tracemalloc
from itertools import pairwise
from typing import Any

import pytest

from phasebus.bus import Bus
from tests.support.bus_publishes import KINDS

pytestmark = pytest.mark.anyio

FIRST, TIMES, ROUNDS = 300, 100, 4


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
async def test_many_publishes_leave_memory_where_it_was(kind: Any) -> None:
    logging.getLogger("phasebus.bus").setLevel(logging.CRITICAL)  # pytest keeps what is logged
    gc.freeze()  # what other tests left is not searched for garbage
    try:
        async with Bus(history=10, timing=True) as bus:
            publish = await kind(bus)
            tracemalloc.start()  # before the bounded histories fill, so that what they drop later counts, too
            for _ in range(FIRST):
                await publish()
            sizes = [_size()]
            for _ in range(ROUNDS):
                for _ in range(TIMES):
                    await publish()
                sizes.append(_size())
            tracemalloc.stop()
    finally:
        gc.unfreeze()
        logging.getLogger("phasebus.bus").setLevel(logging.NOTSET)
    grown = [after - before for before, after in pairwise(sizes)]
    assert min(grown) < 100 * TIMES, f"{grown} bytes are left of {TIMES} publishes"  # other threads allocate as well


def _size() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]
