from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path

import pytest

from phasebus.telemetry.timeline import Capacity
from tests.support.soak import soaked

pytestmark = pytest.mark.anyio

REQUESTS = 1000
BYTES = 200
"""More than the caches vary by for each request, and less than what a kept step (1 KB) or context has."""
ROUNDS = 4
"""How often it is measured, at most: other threads allocate as well, but what requests leave behind grows in every round."""


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("traced_per_second", [0.0, 1e9], ids=["counted", "steps"])
async def test_memory_after_many_requests_equals_memory_after_twice_as_many(
    traced_per_second: float, tmp_path: Path
) -> None:
    capacity = Capacity(steps=400, start_steps=200, removed=100)
    async with soaked(tmp_path / "soak.jsonl", traced_per_second, capacity) as send:
        await send(2 * REQUESTS)
        tracemalloc.start()
        try:
            await send(REQUESTS)
            grown: list[int] = []
            while not grown or (len(grown) < ROUNDS and grown[-1] >= BYTES * REQUESTS):
                before = _size()
                await send(REQUESTS)
                grown.append(_size() - before)
        finally:
            tracemalloc.stop()
    assert grown[-1] < BYTES * REQUESTS, grown


def _size() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]
