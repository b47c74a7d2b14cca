"""The events of a download: of a model, and of each of its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from phasebus.bus import StepFailed, StepFinished, StepKind, StepProgress, StepStarted


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadStarted(StepStarted):
    """Published when a model begins to be fetched; attributes: ``model``, ``source``, ``mode``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadProgress(StepProgress):
    """Published while a model is being fetched, in bytes, at most five times a second.

    The attribute ``bytes_per_second`` is the rate of late; ``waiting`` is True while another process does the fetching.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadFinished(StepFinished):
    """Published when a model is there, whole.

    Its attributes say what it took: ``files``, ``bytes`` (those fetched), ``cache_hits`` (files that were there already),
    ``retries`` (tries again after a failure), ``resumed`` (bytes an earlier process had left), ``revision``.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadFailed(StepFailed):
    """Published when a model could not be fetched; attributes as for `DownloadFinished`, as far as it got."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileStarted(StepStarted):
    """Published when a file begins to be fetched, or is found to be there; attributes: ``model``, ``source``, ``file``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileProgress(StepProgress):
    """Published while a file is being fetched, in bytes, at most five times a second; see `DownloadProgress`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFinished(StepFinished):
    """Published when a file is there, whole, under its final name.

    The attribute ``outcome`` is ``"fetched"``, ``"resumed"`` or ``"cache_hit"``; ``bytes``, ``retries`` and ``resumed`` as
    for `DownloadFinished`.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFailed(StepFailed):
    """Published when a file could not be fetched."""


DOWNLOAD = StepKind(
    "download", started=DownloadStarted, progress=DownloadProgress, finished=DownloadFinished, failed=DownloadFailed
)
FILE = StepKind("file", started=FileStarted, progress=FileProgress, finished=FileFinished, failed=FileFailed)


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadResult:
    """What a download came to.

    Attributes:
        path: The folder the model is in; or its one file.
        files: How many files it has.
        bytes: Their size.
        fetched: How many bytes came over the network.
        cache_hits: How many of the files were there already.
        retries: How many tries were made again after a failure.
        resumed: How many bytes an earlier process had left.
        seconds: How long it took.
        extra: What became of the extra files, in the order they were asked for.
    """

    path: Path
    files: int
    bytes: int
    fetched: int = 0
    cache_hits: int = 0
    retries: int = 0
    resumed: int = 0
    seconds: float
    extra: tuple[DownloadResult, ...] = ()
