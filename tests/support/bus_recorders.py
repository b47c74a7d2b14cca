"""Observers that record what they see."""

from __future__ import annotations

import threading

import anyio.lowlevel

from phasebus.bus import Bus, SubscriberStats


class Ping:
    def __init__(self, number: int = 0) -> None:
        self.number = number


def stats_of(bus: Bus, name: str) -> SubscriberStats:
    return next(stats for stats in bus.stats() if stats.name == name)


class Recorder:
    """An observer in the shape of an object."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.threads: set[int] = set()
        self.closed = 0

    def observe(self, event: Ping) -> None:
        self.seen.append(event.number)
        self.threads.add(threading.get_ident())

    def close(self) -> None:
        self.closed += 1


class AsyncRecorder(Recorder):
    async def observe(self, event: Ping) -> None:  # type: ignore[override]
        await anyio.lowlevel.checkpoint()
        super().observe(event)

    async def close(self) -> None:  # type: ignore[override]
        await anyio.lowlevel.checkpoint()
        super().close()
