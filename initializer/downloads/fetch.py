"""Fetching a model: for now, one that is on this machine already."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import anyio.to_thread

from phasebus.bus import Bus, PhasebusError
from phasebus.initializer.context import DownloadMode
from phasebus.initializer.downloads.events import DOWNLOAD


class DownloadError(PhasebusError):
    """Raised when a model is not there, or not whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadResult:
    """What a download came to.

    Attributes:
        path: The folder the model is in.
        files: How many files it has.
        bytes: Their size.
        cache_hits: How many of them were there already.
        seconds: How long it took.
    """

    path: Path
    files: int
    bytes: int
    cache_hits: int
    seconds: float


async def fetch(bus: Bus, model: str, mode: DownloadMode = "MODEL_AND_TOKENIZER") -> DownloadResult | None:
    """Make sure that `model` is on this machine; return what was found, or None if `mode` is ``"NONE"``.

    Args:
        bus: Where the download is told of.
        model: The path of the model's folder, or a ``file://`` URL of it. It is used where it is.
        mode: Which of its files are asked for.

    Raises:
        DownloadError: There is no model at that path.
    """
    if mode == "NONE":
        return None
    began = time.monotonic()
    async with bus.step(DOWNLOAD, model, attributes={"model": model, "source": "file", "mode": mode}) as step:
        path, sizes = await anyio.to_thread.run_sync(_inspect, model)
        step.attributes |= {"files": len(sizes), "bytes": 0, "cache_hits": len(sizes)}
    return DownloadResult(
        path=path, files=len(sizes), bytes=sum(sizes), cache_hits=len(sizes), seconds=time.monotonic() - began
    )


def _inspect(model: str) -> tuple[Path, list[int]]:
    """Return the folder of a model and the sizes of its files, in bytes."""
    path = Path(model.removeprefix("file://")).expanduser()
    if not path.exists():
        raise DownloadError(
            f"there is no model at {model!r} (looked for the folder {path.absolute()}); "
            "give the path of a folder with a config.json, as `huggingface-cli download` makes it"
        )
    if not (path / "config.json").is_file():
        raise DownloadError(f"{path.absolute()} is no model: it has no config.json")
    return path.absolute(), [file.stat().st_size for file in path.rglob("*") if file.is_file()]
