"""Bringing what one source has into one folder."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import anyio
from anyio import CapacityLimiter

from phasebus.bus import Bus, Step
from phasebus.initializer.downloads.errors import DownloadError, TransferError
from phasebus.initializer.downloads.events import DOWNLOAD, DownloadResult
from phasebus.initializer.downloads.files import Files
from phasebus.initializer.downloads.locks import alone
from phasebus.initializer.downloads.modes import wanted
from phasebus.initializer.downloads.paths import STATE, default_folder, free_bytes
from phasebus.initializer.downloads.progress import Meter
from phasebus.initializer.downloads.record import Record
from phasebus.initializer.downloads.retries import Budget
from phasebus.initializer.downloads.settings import DownloadMode, DownloadSettings
from phasebus.initializer.downloads.sources.protocol import Listing, RemoteFile, Source
from phasebus.initializer.downloads.threads import in_thread
from phasebus.initializer.downloads.transfer import Transfer

T = TypeVar("T")

_SPARE = 16 * 2**20
"""How many bytes are to be left free on the disk, for the file system's own needs."""


async def bring(
    bus: Bus,
    source: Source,
    mode: DownloadMode,
    destination: Path | None,
    settings: DownloadSettings,
    model: str | None = None,
) -> DownloadResult:
    """Have those files of `source` that `mode` asks for on this machine, whole and checked.

    Args:
        bus: Where the download is told of.
        source: Where they come from; it is closed in the end.
        mode: Which of them are asked for.
        destination: The folder they go to; by default one the source proposes.
        settings: How to fetch.
        model: The model they belong to, as the metrics' label says it; by default the source itself.

    Raises:
        DownloadError: They could not all be brought.
    """
    began = time.monotonic()
    labels = {"model": model or source.display, "source": source.kind}
    try:
        async with bus.step(DOWNLOAD, source.display, attributes={**labels, "mode": mode}) as step:
            step.attributes["retries"] = 0
            listing = await _ask(source.listing, settings, step)
            if listing.revision is not None:
                step.attributes["revision"] = listing.revision
            chosen = list(listing.files) if listing.single else wanted(listing.files, mode)
            if not chosen:
                raise DownloadError(
                    f"{source.display} has no file that {mode} asks for ({len(listing.files)} others); "
                    "check the source, or choose another mode"
                )
            folder = destination or listing.folder or default_folder(source.kind, source.display)
            folder = folder.expanduser().absolute()
            files = await _fetch(bus, step, source, chosen, folder, labels, settings)
            await in_thread(lambda: _settle(folder, listing, mode), CapacityLimiter(1))
    finally:
        source.close()
    summary = files.summary()
    return DownloadResult(
        path=folder / chosen[0].name if listing.single else folder,
        files=summary["files"],
        bytes=files.done,
        fetched=summary["bytes"],
        cache_hits=summary["cache_hits"],
        retries=int(step.attributes["retries"]),
        resumed=summary["resumed"],
        seconds=time.monotonic() - began,
    )


async def _ask(ask: Callable[[], T], settings: DownloadSettings, step: Step) -> T:
    """Return what a source answers, asked again while that is worth it."""
    budget, limiter = Budget(settings), CapacityLimiter(1)
    while True:
        try:
            return await in_thread(ask, limiter, lambda: None)
        except TransferError as error:
            pause = budget.pause(error)
            if pause is None:
                raise DownloadError(f"{step.name} cannot be listed: {error}; the next start may try again") from error
            step.attributes["retries"] = int(step.attributes["retries"]) + 1
            await anyio.sleep(pause)


async def _fetch(
    bus: Bus,
    step: Step,
    source: Source,
    chosen: Sequence[RemoteFile],
    folder: Path,
    labels: dict[str, str],
    settings: DownloadSettings,
) -> Files:
    """Fetch the `chosen` files into `folder`, as soon as nobody else does."""
    waited = Meter(step)

    async def waiting(done: int, total: int | None) -> None:
        step.attributes["waiting"] = True
        await waited.tell(done, total)

    async with alone(folder, waiting):
        if step.attributes.pop("waiting", False):
            step.attributes["waited"] = True
        transfers, missing = await in_thread(lambda: _look(source, chosen, folder), CapacityLimiter(1))
        free = free_bytes(folder)
        if missing + _SPARE > free and missing:
            raise DownloadError(
                f"{source.display} needs {missing} bytes more in {folder}, and {free} are free; free some, or choose "
                "another destination"
            )
        files = Files(bus, transfers, folder, source.display, labels, settings)
        listed = int(step.attributes["retries"])
        meter = Meter(step, files.done)
        try:
            await files.fetch(meter)
        finally:
            step.attributes |= files.summary()
            step.attributes |= {
                "retries": listed + files.retries,
                "bytes_per_second": meter.average(int(step.attributes["bytes"])),
            }
    return files


def _look(source: Source, chosen: Sequence[RemoteFile], folder: Path) -> tuple[list[Transfer], int]:
    """Return the transfers, and how many bytes they will write, as far as is known."""
    names = [file.name for file in chosen]
    if len(set(names)) < len(names):
        raise DownloadError(f"{source.display} lists {Counter(names).most_common(1)[0][0]!r} more than once")
    record = Record(folder / STATE / "record.jsonl")
    transfers = [Transfer(source, file, folder, record) for file in chosen]
    return transfers, sum(transfer.look() for transfer in transfers)


def _settle(folder: Path, listing: Listing, mode: DownloadMode) -> None:
    """Tell other tools where the files are, and clear away what was left of others."""
    for path, content in listing.refs.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_text(content, encoding="ascii")
        temporary.replace(path)
    if mode == "MODEL_AND_TOKENIZER" and not listing.single:
        for left in (folder / STATE).glob("?" * 24 + ".*"):
            left.unlink(missing_ok=True)
