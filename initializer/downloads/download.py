"""Downloading the files of one source into one folder."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

import anyio
from anyio import CapacityLimiter

from phasebus.bus import Bus, Step
from phasebus.initializer.downloads.errors import DownloadError, TransferError, UnavailableError
from phasebus.initializer.downloads.events import DOWNLOAD, LISTING, DownloadResult
from phasebus.initializer.downloads.inspection import inspect_model
from phasebus.initializer.downloads.inventory import missing_of_inventory, write_inventory
from phasebus.initializer.downloads.locks import exclusive_access
from phasebus.initializer.downloads.modes import select_files
from phasebus.initializer.downloads.names import check_listing
from phasebus.initializer.downloads.paths import ANOTHER_FOLDER, STATE, default_folder, expanded, free_bytes
from phasebus.initializer.downloads.progress import ProgressMeter
from phasebus.initializer.downloads.protocol import Listing, RemoteFile, Source
from phasebus.initializer.downloads.record import Record
from phasebus.initializer.downloads.retries import RetryBudget
from phasebus.initializer.downloads.settings import DownloadMode, DownloadSettings
from phasebus.initializer.downloads.sources.hub_cache import MAX_REF
from phasebus.initializer.downloads.sources.local import LocalSource
from phasebus.initializer.downloads.threads import run_in_thread
from phasebus.initializer.downloads.transfer import Transfer
from phasebus.initializer.downloads.transfers import Transfers
from phasebus.initializer.downloads.weights import foreign_weights, missing_shards_problem
from phasebus.telemetry.files import read_regular, replace_regular

T = TypeVar("T")

logger = logging.getLogger("phasebus.downloads")

_RESERVE = 16 * 2**20
"""Number of bytes to leave free on the disk for the file system itself."""


async def download(
    bus: Bus,
    source: Source,
    mode: DownloadMode,
    destination: Path | None,
    settings: DownloadSettings,
    model: str | None = None,
) -> DownloadResult:
    """Download and verify the files of `source` that `mode` selects.

    Args:
        bus: The bus that the events are published on.
        source: The source; it is closed at the end.
        mode: Selects the files.
        destination: The folder to download into; by default the one that the source proposes.
        settings: The limits.
        model: The model that the files belong to, for the metrics' label; by default the source itself.

    Raises:
        DownloadError: At least one file could not be downloaded.
    """
    began = time.monotonic()
    labels = {"model": model or source.display, "source": source.kind}
    try:
        async with bus.step(DOWNLOAD, source.display, attributes={**labels, "mode": mode}) as step:
            step.attributes["retries"] = 0
            async with bus.step(LISTING, source.display, attributes=labels) as asking:
                listing = await _list(source, destination, settings, step)
                asking.attributes |= {"in_place": True} if listing.in_place else {"files": len(listing.files)}
            if listing.in_place:
                folder = await _in_thread(lambda: _complete_copy(listing, destination))
                if folder is not None:
                    return await _inspect_in_place(step, source.display, folder, mode, began)
                source = LocalSource(source.display, cast("Path", listing.folder))
                listing = await _call(source.listing, step, settings, source.close)
            check_listing(listing, source.display)
            if listing.skipped:
                step.attributes["skipped"] = len(listing.skipped)
                names = ", ".join(map(repr, listing.skipped[:5]))
                logger.warning("%s has names that are not file names; they are skipped: %s", source.display, names)
            if listing.revision is not None:
                step.attributes["revision"] = listing.revision
            chosen = list(listing.files) if listing.single else select_files(listing.files, mode)
            if not chosen:
                raise DownloadError(
                    f"{source.display} has no file that {mode} selects ({len(listing.files)} others); "
                    "check the source, or choose another mode"
                )
            folder = destination or listing.folder or default_folder(source.kind, source.display)
            folder = expanded(folder).absolute()
            if isinstance(source, LocalSource):
                await _in_thread(partial(source.check_destination, folder))
            transfers = await _fetch(bus, step, source, chosen, folder, listing.earlier, labels, settings)
            await _in_thread(lambda: _finish(folder, listing, chosen, mode))
    finally:
        source.close()
    summary = transfers.summary()
    return DownloadResult(
        path=folder / chosen[0].name if listing.single else folder,
        files=summary["files"],
        bytes=transfers.done,
        fetched=summary["bytes"],
        cache_hits=summary["cache_hits"],
        retries=int(step.attributes["retries"]),
        resumed=summary["resumed"],
        seconds=time.monotonic() - began,
    )


async def use_in_place(bus: Bus, display: str, kind: str, path: Path, mode: DownloadMode) -> DownloadResult:
    """Check a local model and use it in place.

    Raises:
        DownloadError: There is no model, or one of its files is missing or incomplete.
    """
    began = time.monotonic()
    attributes = {"model": display, "source": kind, "mode": mode}
    async with bus.step(DOWNLOAD, display, attributes=attributes) as step:
        return await _inspect_in_place(step, display, path, mode, began)


async def _inspect_in_place(step: Step, display: str, path: Path, mode: DownloadMode, began: float) -> DownloadResult:
    path, sizes = await _in_thread(lambda: inspect_model(display, path, mode))
    step.attributes |= {"files": len(sizes), "bytes": 0, "cache_hits": len(sizes), "retries": 0, "resumed": 0}
    return DownloadResult(
        path=path, files=len(sizes), bytes=sum(sizes), cache_hits=len(sizes), seconds=time.monotonic() - began
    )


async def _list(source: Source, destination: Path | None, settings: DownloadSettings, step: Step) -> Listing:
    """Return the listing of a source; if that fails, the listing of an earlier download that is still complete."""
    try:
        return await _call(source.listing, step, settings, source.close)
    except UnavailableError as error:
        folder = expanded(destination or default_folder(source.kind, source.display)).absolute()
        missing = await _in_thread(lambda: missing_of_inventory(folder))
        if missing is None:
            raise
        if missing:
            raise DownloadError(f"{error}; {folder} lacks {missing[0]!r} of an earlier download") from error
        logger.warning("%s; using the earlier download in %s, which is complete", error, folder)
        return Listing(files=(), folder=folder, in_place=True)


def _complete_copy(listing: Listing, destination: Path | None) -> Path | None:
    """Return the folder with the complete model of an in-place listing; None if it must be copied to the destination."""
    if destination is None:
        return listing.folder
    folder = expanded(destination).absolute()
    is_complete = folder == listing.folder or missing_of_inventory(folder, listing.revision) == []
    return folder if is_complete else None


async def _call(function: Callable[[], T], step: Step, settings: DownloadSettings, stop: Callable[[], None]) -> T:
    """Call a method of a source and return its result; retry it as often as the settings allow."""
    budget, limiter = RetryBudget(settings), CapacityLimiter(1)
    while True:
        try:
            return await run_in_thread(function, limiter, stop)
        except TransferError as error:
            pause = budget.next_pause(error)
            if pause is None:
                raise UnavailableError(
                    f"{step.name} cannot be listed: {error}; check the connection and start again"
                ) from error
            if not step.attributes["retries"]:
                logger.warning(
                    "%s is not listed yet: %s; retrying, %d times at most", step.name, error, settings.attempts - 1
                )
            step.attributes["retries"] = int(step.attributes["retries"]) + 1
            await anyio.sleep(pause)


async def _in_thread(function: Callable[[], T]) -> T:
    """Call a function that only accesses the disk in a thread; return its result."""
    return await run_in_thread(function, CapacityLimiter(1), lambda: None)


async def _fetch(
    bus: Bus,
    step: Step,
    source: Source,
    chosen: Sequence[RemoteFile],
    folder: Path,
    earlier: Sequence[Path],
    labels: dict[str, str],
    settings: DownloadSettings,
) -> Transfers:
    """Download the `chosen` files into `folder` when no other process downloads into it.

    If all files are present, nothing is written and no lock is held.
    """
    waited = ProgressMeter(step)

    async def on_wait(done: int, total: int | None) -> None:
        step.attributes["waiting"] = True
        await waited.report(done, total)

    pending, missing = await _in_thread(lambda: _inspect(source, chosen, folder, earlier, None))
    complete = all(transfer.hit for transfer in pending)
    async with nullcontext() if complete else exclusive_access(folder, on_wait) as partials:
        if not complete:
            if step.attributes.pop("waiting", False):
                step.attributes["waited"] = True
            pending, missing = await _in_thread(lambda: _inspect(source, chosen, folder, earlier, partials))
            free = free_bytes(folder)
            if missing and free is not None and missing + _RESERVE > free:
                raise DownloadError(
                    f"{source.display} needs {missing} bytes more in {folder}, and {free} are free; free some, or "
                    f"{ANOTHER_FOLDER}"
                )
        transfers = Transfers(bus, pending, folder, source.display, labels, settings)
        listing_retries = int(step.attributes["retries"])
        meter = ProgressMeter(step, transfers.done)
        try:
            await transfers.fetch(meter)
        finally:
            step.attributes |= transfers.summary()
            step.attributes |= {
                "retries": listing_retries + transfers.retries,
                "bytes_per_second": meter.average(int(step.attributes["bytes"])),
            }
    return transfers


def _inspect(
    source: Source, chosen: Sequence[RemoteFile], folder: Path, earlier: Sequence[Path], partials: Path | None
) -> tuple[list[Transfer], int]:
    """Return the transfers, and the number of bytes that they will write, as far as it is known."""
    record = Record(folder)
    transfers = [Transfer(source, file, folder, record, partials, earlier) for file in chosen]
    return transfers, sum(transfer.inspect() for transfer in transfers)


def _finish(folder: Path, listing: Listing, chosen: Sequence[RemoteFile], mode: DownloadMode) -> None:
    """Check that the model is complete, write the refs for other tools, and remove old partial files."""
    for path, content in listing.refs.items():
        try:
            _write_ref(path, content)
        except OSError as error:
            logger.warning("%s cannot be written (%s); other tools may find an older version", path, error.strerror)
    if mode == "MODEL_AND_TOKENIZER" and not listing.single:
        if (problem := missing_shards_problem(folder)) is not None:
            raise DownloadError(
                f"{problem}: the source is incomplete; upload the missing files, or choose another source"
            )
        if foreign := foreign_weights(folder, {file.name for file in chosen}):
            names = ", ".join(map(repr, foreign[:5]))
            logger.warning(
                "%s has weights of another model, which an engine may load too: %s; remove them, or choose another "
                "destination",
                folder,
                names,
            )
        write_inventory(folder, chosen, listing.revision)
        for left in (folder / STATE).glob("?" * 24 + ".*"):
            with suppress(OSError):
                left.unlink()


def _write_ref(path: Path, content: str) -> None:
    with suppress(OSError):
        if read_regular(path, MAX_REF).strip() == content.encode():
            return
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_regular(path, content.encode())
