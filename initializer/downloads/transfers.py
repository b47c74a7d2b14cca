"""Running the transfers of one source in parallel: each is a step, with retries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anyio
from anyio import CapacityLimiter

from phasebus.bus import Bus
from phasebus.initializer.downloads.errors import CorruptError, DownloadError, TransferError
from phasebus.initializer.downloads.events import FILE
from phasebus.initializer.downloads.locks import write_status
from phasebus.initializer.downloads.progress import INTERVAL, ProgressMeter
from phasebus.initializer.downloads.retries import RetryBudget
from phasebus.initializer.downloads.settings import DownloadSettings
from phasebus.initializer.downloads.threads import run_all, run_in_thread
from phasebus.initializer.downloads.transfer import Transfer


@dataclass(slots=True)
class Transfers:
    """The transfers of one download, and their state.

    Attributes:
        bus: The bus that their steps are published on.
        transfers: The transfers.
        folder: The destination.
        display: The source, for messages.
        labels: The attributes of every file's step.
        settings: The limits.
        retries: The number of retries so far.
    """

    bus: Bus
    transfers: Sequence[Transfer]
    folder: Path
    display: str
    labels: dict[str, str]
    settings: DownloadSettings
    retries: int = 0
    _running: dict[Transfer, ProgressMeter] = field(default_factory=dict)
    _waiting: int = 0
    _ended: anyio.Event = field(default_factory=anyio.Event)

    @property
    def done(self) -> int:
        """The number of bytes present."""
        return sum(each.done for each in self.transfers)

    @property
    def total(self) -> int | None:
        """The total number of bytes; None while it is unknown."""
        sizes = [each.total for each in self.transfers]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    def summary(self) -> dict[str, int]:
        """Return the counts, as attributes of a step."""
        return {
            "files": len(self.transfers),
            "bytes": sum(each.fetched for each in self.transfers),
            "cache_hits": sum(each.hit for each in self.transfers),
            "retries": self.retries,
            "resumed": sum(each.resumed for each in self.transfers),
        }

    async def fetch(self, meter: ProgressMeter) -> None:
        """Fetch all files, the largest first; `meter` reports the total progress.

        Raises:
            DownloadError: A file could not be fetched; the others were stopped.
        """
        queue = sorted(self.transfers, key=lambda each: each.total or 0)
        limiter = CapacityLimiter(self.settings.concurrency)

        async def work() -> None:
            while queue:
                await self._fetch_one(queue.pop(), limiter)

        workers = [work] * min(self.settings.concurrency, len(queue))
        await run_all(workers, meanwhile=lambda: self._report(meter))
        await meter.report(self.done, self.done)

    async def _fetch_one(self, transfer: Transfer, limiter: CapacityLimiter) -> None:
        name = transfer.file.name
        async with self.bus.step(FILE, name, attributes={**self.labels, "file": name}) as step:
            budget, first, retries, furthest = RetryBudget(self.settings), 0, 0, 0
            meter = self._running[transfer] = ProgressMeter(step, transfer.done)
            try:
                while not transfer.hit:
                    ended = self._ended
                    try:
                        await run_in_thread(transfer.attempt, limiter, transfer.stop)
                        break
                    except TransferError as error:
                        pause = budget.next_pause(error, transfer.done - furthest)
                        if pause is None and error.is_busy and await self._wait_for_another(ended):
                            budget, first, pause = RetryBudget(self.settings), retries + 1, 0.0
                        if pause is None:
                            raise DownloadError(self._failure(name, error, retries + 1 - first)) from error
                        furthest = max(furthest, transfer.done)
                    retries += 1
                    self.retries += 1
                    await anyio.sleep(pause)
            finally:
                transfer.close()
                del self._running[transfer]
                self._ended.set()
                self._ended = anyio.Event()
                step.attributes |= {"bytes": transfer.fetched, "retries": retries, "resumed": transfer.resumed}
                step.attributes["bytes_per_second"] = meter.average(transfer.fetched)
            step.attributes["outcome"] = "cache_hit" if transfer.hit else "resumed" if transfer.resumed else "fetched"

    async def _wait_for_another(self, ended: anyio.Event) -> bool:
        """Wait until another transfer has ended: a server may allow fewer connections than `DownloadSettings.concurrency`.

        Args:
            ended: The event of the next end when the attempt began.

        Returns:
            Whether one has; False if no other transfer is running, or all others wait as well.
        """
        if ended.is_set():
            return True
        if self._waiting + 1 >= len(self._running):
            return False
        self._waiting += 1
        try:
            await self._ended.wait()
        finally:
            self._waiting -= 1
        return True

    async def _report(self, whole: ProgressMeter) -> None:
        while True:
            for transfer, meter in tuple(self._running.items()):
                await meter.report(transfer.done, transfer.total)
            done, total = self.done, self.total
            await whole.report(done, total)
            if self._running:
                write_status(self.folder, done, total)
            await anyio.sleep(INTERVAL)

    def _failure(self, name: str, error: TransferError, attempts: int) -> str:
        what = f"{name} of {self.display} could not be downloaded in {attempts} attempts: {error}"
        if isinstance(error, CorruptError):
            return f"{what}; the source itself is at fault: check the file there"
        return f"{what}; the received bytes are kept, and the next start continues from there"
