"""Reporting progress at a limited rate, with the current speed."""

from __future__ import annotations

import time
from collections import deque

from phasebus.bus import Step

INTERVAL = 0.2
"""The interval between two reports, in seconds."""

_WINDOW = 3.0
"""The period over which the speed is measured, in seconds."""


class ProgressMeter:
    """Reports the progress of one step.

    Args:
        step: The step.
        present: The number of bytes present at the start, which the speed does not include.
    """

    def __init__(self, step: Step, present: int = 0) -> None:
        self._step = step
        self._began = time.monotonic()
        self._samples = deque([(time.monotonic(), present)])
        self._reported: tuple[int, int | None] | None = None

    async def report(self, done: int, total: int | None) -> None:
        """Publish that `done` of `total` bytes are present, unless the last report had the same values."""
        now = time.monotonic()
        self._samples.append((now, done))
        while len(self._samples) > 2 and now - self._samples[1][0] > _WINDOW:
            self._samples.popleft()
        if self._reported == (done, total):
            return
        self._reported = (done, total)
        since, before = self._samples[0]
        self._step.attributes["bytes_per_second"] = round(max(0, done - before) / max(now - since, 1e-6))
        await self._step.progress(done, total, "By")

    def average(self, fetched: int) -> int:
        """Return the average speed since the start, in bytes per second, for `fetched` bytes."""
        return round(fetched / max(time.monotonic() - self._began, 1e-6))
