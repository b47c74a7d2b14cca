"""Shared by the tests of downloads: files to download, and a bus that keeps its events."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from phasebus.bus import Bus, StepEvent
from phasebus.initializer.downloads import DownloadSettings

E = TypeVar("E", bound=StepEvent)

QUICK = DownloadSettings(first_pause_seconds=0.001, longest_pause_seconds=0.01, stall_seconds=30, connect_seconds=30)
"""Settings for tests: failures are retried at once."""

STALLING = QUICK.model_copy(update={"stall_seconds": 0.5})
"""Settings for a server that stalls. A busy machine may stall as well, so there may be more retries."""


def noise(size: int, seed: int = 0) -> bytes:
    """Return `size` bytes, the same for the same seed."""
    return random.Random(seed).randbytes(size)


def safetensors(size: int, seed: int = 0) -> bytes:
    """Return a well-formed safetensors file with one tensor of `size` bytes."""
    header = json.dumps({"weight": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(header)) + header + noise(size, seed)


def tree(folder: Path) -> dict[str, bytes]:
    """Return the files in a destination by name, without the state of the download itself."""
    return {
        each.relative_to(folder).as_posix(): each.read_bytes()
        for each in folder.rglob("*")
        if each.is_file() and ".phasebus" not in each.parts
    }


class Watched:
    """An open bus, and every step event that was published on it."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.events: list[StepEvent] = []

    def of(self, kind: type[E], name: str | None = None) -> list[E]:
        """Return the events of a class, or of a class and with a name."""
        return [each for each in self.events if isinstance(each, kind) and name in {None, each.name}]


@asynccontextmanager
async def watched() -> AsyncIterator[Watched]:
    """Open a bus whose step events are kept, in order."""
    async with Bus("downloads") as bus:
        seen = Watched(bus)

        async def keep(event: StepEvent) -> None:
            seen.events.append(event)

        bus.subscribe(StepEvent, keep)
        yield seen
