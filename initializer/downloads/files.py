"""The files of one source, fetched side by side: each a step, with its tries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anyio
from anyio import CapacityLimiter

from phasebus.bus import Bus
from phasebus.initializer.downloads.errors import CorruptError, DownloadError, TransferError
from phasebus.initializer.downloads.events import FILE
from phasebus.initializer.downloads.locks import tell_others
from phasebus.initializer.downloads.progress import INTERVAL, Meter
from phasebus.initializer.downloads.retries import Budget
from phasebus.initializer.downloads.settings import DownloadSettings
from phasebus.initializer.downloads.threads import all_of, in_thread
from phasebus.initializer.downloads.transfer import Transfer


@dataclass(slots=True)
class Files:
    """The transfers of one download, and what they have come to so far.

    Attributes:
        bus: Where they are told of.
        transfers: All of them.
        folder: Where they go.
        display: What their source is called in messages.
        labels: The attributes that every file's step has.
        settings: How to fetch.
        retries: How many tries were made again.
    """

    bus: Bus
    transfers: Sequence[Transfer]
    folder: Path
    display: str
    labels: dict[str, str]
    settings: DownloadSettings
    retries: int = 0
    _running: dict[Transfer, Meter] = field(default_factory=dict)

    @property
    def done(self) -> int:
        """How many bytes are here."""
        return sum(each.done for each in self.transfers)

    @property
    def total(self) -> int | None:
        """How many bytes there will be; None while that is unknown."""
        sizes = [each.total for each in self.transfers]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    def summary(self) -> dict[str, int]:
        """Return what it came to, as attributes."""
        return {
            "files": len(self.transfers),
            "bytes": sum(each.fetched for each in self.transfers),
            "cache_hits": sum(each.hit for each in self.transfers),
            "retries": self.retries,
            "resumed": sum(each.resumed for each in self.transfers),
        }

    async def fetch(self, meter: Meter) -> None:
        """Fetch all of them, the largest first; `meter` is told how far it is.

        Raises:
            DownloadError: One of them could not be fetched; the others were stopped.
        """
        queue = sorted(self.transfers, key=lambda each: each.total or 0)
        limiter = CapacityLimiter(self.settings.concurrency)

        async def work() -> None:
            while queue:
                await self._one(queue.pop(), limiter)

        await all_of([work] * min(self.settings.concurrency, len(queue)), beside=lambda: self._tell(meter))
        await meter.tell(self.done, self.done)

    async def _one(self, transfer: Transfer, limiter: CapacityLimiter) -> None:
        name = transfer.file.name
        async with self.bus.step(FILE, name, attributes={**self.labels, "file": name}) as step:
            budget, retries = Budget(self.settings), 0
            meter = self._running[transfer] = Meter(step, transfer.done)
            try:
                while not transfer.hit:
                    before = transfer.fetched
                    try:
                        await in_thread(transfer.attempt, limiter, transfer.stop)
                        break
                    except TransferError as error:
                        pause = budget.pause(error, transfer.fetched - before)
                        if pause is None:
                            raise DownloadError(self._given_up(name, error, retries + 1)) from error
                    retries += 1
                    self.retries += 1
                    await anyio.sleep(pause)
            finally:
                transfer.close()
                del self._running[transfer]
                step.attributes |= {"bytes": transfer.fetched, "retries": retries, "resumed": transfer.resumed}
                step.attributes["bytes_per_second"] = meter.average(transfer.fetched)
            step.attributes["outcome"] = "cache_hit" if transfer.hit else "resumed" if transfer.resumed else "fetched"

    async def _tell(self, whole: Meter) -> None:
        while True:
            for transfer, meter in tuple(self._running.items()):
                await meter.tell(transfer.done, transfer.total)
            done, total = self.done, self.total
            await whole.tell(done, total)
            tell_others(self.folder, done, total)
            await anyio.sleep(INTERVAL)

    def _given_up(self, name: str, error: TransferError, tries: int) -> str:
        what = f"{name} of {self.display} could not be fetched, in {tries} tries"
        if isinstance(error, CorruptError):
            return f"{what}: {error}; the source itself must be at fault, so see what it has there"
        return f"{what}: {error}; what came is kept, and the next start goes on from there"
