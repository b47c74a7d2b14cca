"""Telling how far it is: seldom enough that nobody is flooded, with the rate of late."""

from __future__ import annotations

import time
from collections import deque

from phasebus.bus import Step

INTERVAL = 0.2
"""How often progress is told, in seconds."""

_WINDOW = 3.0
"""Over how long a rate is measured, in seconds."""


class Meter:
    """Tells the progress of one step.

    Args:
        step: The step.
        fetched: How many bytes there are at the start, for which nothing had to be fetched.
    """

    def __init__(self, step: Step, fetched: int = 0) -> None:
        self._step = step
        self._began = time.monotonic()
        self._marks = deque([(time.monotonic(), fetched)])
        self._told: tuple[int, int | None] | None = None

    async def tell(self, done: int, total: int | None) -> None:
        """Publish that `done` of `total` bytes are there, unless that was the last thing said."""
        now = time.monotonic()
        self._marks.append((now, done))
        while len(self._marks) > 2 and now - self._marks[1][0] > _WINDOW:
            self._marks.popleft()
        if self._told == (done, total):
            return
        self._told = (done, total)
        since, before = self._marks[0]
        self._step.attributes["bytes_per_second"] = round(max(0, done - before) / max(now - since, 1e-6))
        await self._step.progress(done, total, "By")

    def average(self, fetched: int) -> int:
        """Return the rate of the whole, in bytes a second, once `fetched` bytes have come."""
        return round(fetched / max(time.monotonic() - self._began, 1e-6))
