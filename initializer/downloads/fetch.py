"""`fetch`: make a model and its extra files available on this machine."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

from phasebus.bus import Bus
from phasebus.initializer.downloads.download import download, use_in_place
from phasebus.initializer.downloads.events import DownloadResult
from phasebus.initializer.downloads.settings import DownloadMode, DownloadSettings, ExtraFile
from phasebus.initializer.downloads.sources import source_of
from phasebus.initializer.downloads.sources.local import LocalSource
from phasebus.initializer.downloads.threads import run_all


async def fetch(
    bus: Bus,
    model: str,
    mode: DownloadMode = "MODEL_AND_TOKENIZER",
    *,
    destination: Path | str | None = None,
    extra_files: Sequence[ExtraFile] = (),
    settings: DownloadSettings | None = None,
) -> DownloadResult | None:
    """Download `model` and the extra files; return the result.

    Args:
        bus: The bus that the events are published on.
        model: ``hf://org/name@revision``, ``org/name``, ``s3://…``, ``gs://…``, ``az://…``, ``https://…``, the address of
            another installed source, a path, or a ``file://`` URL. Without a `destination`, a local model is used in
            place.
        mode: Selects the files of the model; with ``"NONE"`` only the extra files are downloaded.
        destination: The folder to download into; by default the hub's own cache for ``hf://``, else the user's cache.
        extra_files: Further files and folders, downloaded at the same time.
        settings: The limits.

    Returns:
        The result; None if `mode` is ``"NONE"``.

    Raises:
        DownloadError: The model or an extra file does not exist, is incomplete, or cannot be downloaded.
    """
    settings = settings or DownloadSettings()
    source = source_of(model, settings)
    extras = [source_of(each.source, settings) for each in extra_files]
    results: list[DownloadResult] = []
    extra_results: dict[int, DownloadResult] = {}

    async def fetch_model() -> None:
        if isinstance(source, LocalSource) and destination is None:
            results.append(await use_in_place(bus, source.display, source.kind, source.path, mode))
        else:
            folder = None if destination is None else Path(destination)
            results.append(await download(bus, source, mode, folder, settings))

    async def fetch_extra(number: int) -> None:
        destination = extra_files[number].destination
        extra_results[number] = await download(
            bus, extras[number], "MODEL_AND_TOKENIZER", destination, settings, source.display
        )

    began = time.monotonic()
    work = [lambda number=number: fetch_extra(number) for number in range(len(extras))]
    await run_all([fetch_model, *work] if mode != "NONE" else work)
    if not results:
        return None
    extra = tuple(extra_results[number] for number in range(len(extras)))
    return dataclasses.replace(results[0], extra=extra, seconds=time.monotonic() - began)
