"""`fetch`: having a model on this machine, wherever it comes from, and what is wanted beside it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import anyio.to_thread

from phasebus.bus import Bus
from phasebus.initializer.downloads.events import DOWNLOAD, DownloadResult
from phasebus.initializer.downloads.settings import DownloadMode, DownloadSettings, ExtraFile
from phasebus.initializer.downloads.sources import source_of
from phasebus.initializer.downloads.sources.local import LocalSource, inspect
from phasebus.initializer.downloads.threads import all_of
from phasebus.initializer.downloads.tree import bring


async def fetch(
    bus: Bus,
    model: str,
    mode: DownloadMode = "MODEL_AND_TOKENIZER",
    *,
    destination: Path | str | None = None,
    extra_files: Sequence[ExtraFile] = (),
    settings: DownloadSettings | None = None,
) -> DownloadResult | None:
    """Have `model` and the extra files on this machine; return what came of it.

    Args:
        bus: Where the download is told of.
        model: ``hf://org/name@revision``, ``org/name``, ``s3://…``, ``gs://…``, ``az://…``, ``https://…``, or a path or
            ``file://`` URL. A model that is on this machine is used where it is, unless there is a `destination`.
        mode: Which of its files are asked for; with ``"NONE"`` only the extra files are fetched.
        destination: The folder it goes to; by default the hub's own cache for ``hf://``, else the user's cache folder.
        extra_files: What else to fetch, at the same time.
        settings: How to fetch.

    Returns:
        What came of it; None if `mode` is ``"NONE"``.

    Raises:
        DownloadError: Something could not be had, or is not whole. The message says what, why, and what to do.
    """
    settings = settings or DownloadSettings()
    source = source_of(model, settings)
    extras = [source_of(each.source, settings) for each in extra_files]
    found: list[DownloadResult] = []
    brought: dict[int, DownloadResult] = {}

    async def bring_model() -> None:
        if isinstance(source, LocalSource) and destination is None:
            found.append(await _use(bus, source, mode))
        else:
            found.append(await bring(bus, source, mode, None if destination is None else Path(destination), settings))

    async def bring_extra(number: int) -> None:
        brought[number] = await bring(
            bus, extras[number], "MODEL_AND_TOKENIZER", extra_files[number].destination, settings, source.display
        )

    began = time.monotonic()
    work = [lambda number=number: bring_extra(number) for number in range(len(extras))]
    await all_of([bring_model, *work] if mode != "NONE" else work)
    if not found:
        return None
    extra = tuple(brought[number] for number in range(len(extras)))
    return dataclasses.replace(found[0], extra=extra, seconds=time.monotonic() - began)


async def _use(bus: Bus, source: LocalSource, mode: DownloadMode) -> DownloadResult:
    """Use a model where it is."""
    began = time.monotonic()
    attributes = {"model": source.display, "source": source.kind, "mode": mode}
    async with bus.step(DOWNLOAD, source.display, attributes=attributes) as step:
        path, sizes = await anyio.to_thread.run_sync(inspect, source.display, source.path)
        step.attributes |= {"files": len(sizes), "bytes": 0, "cache_hits": len(sizes), "retries": 0, "resumed": 0}
    return DownloadResult(
        path=path, files=len(sizes), bytes=sum(sizes), cache_hits=len(sizes), seconds=time.monotonic() - began
    )
