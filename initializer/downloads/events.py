"""The events of a model's download, and of each of its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from phasebus.bus import StepFailed, StepFinished, StepKind, StepProgress, StepStarted


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadStarted(StepStarted):
    """Published when the download of a model starts; attributes: ``model``, ``source``, ``mode``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadProgress(StepProgress):
    """Published during the download of a model, in bytes, at most five times a second.

    The attribute ``bytes_per_second`` is the current speed; ``waiting`` is True while another process downloads.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadFinished(StepFinished):
    """Published when a model is complete and verified.

    Attributes: ``files``, ``bytes`` (fetched bytes), ``cache_hits`` (files that were present), ``retries``, ``resumed``
    (bytes of an earlier process), ``revision``, ``skipped`` (number of names that are not file names).
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadFailed(StepFailed):
    """Published when a model could not be downloaded; has the known attributes of `DownloadFinished`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListingStarted(StepStarted):
    """Published before a source is asked for its files; attributes: ``model``, ``source``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListingFinished(StepFinished):
    """Published when the files of a source are known.

    Attributes: ``files`` (their number), or ``in_place``, which is True if a complete copy on the disk is used instead.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class ListingFailed(StepFailed):
    """Published when the files of a source cannot be known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileStarted(StepStarted):
    """Published before a file is fetched or found to be present; attributes: ``model``, ``source``, ``file``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileProgress(StepProgress):
    """Published while a file is fetched, in bytes, at most five times a second; see `DownloadProgress`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFinished(StepFinished):
    """Published when a file is complete and verified, under its final name.

    The attribute ``outcome`` is ``"fetched"``, ``"resumed"`` or ``"cache_hit"``; ``bytes``, ``retries`` and ``resumed`` are
    those of `DownloadFinished`.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFailed(StepFailed):
    """Published when a file could not be fetched."""


DOWNLOAD = StepKind(
    "download", started=DownloadStarted, progress=DownloadProgress, finished=DownloadFinished, failed=DownloadFailed
)
LISTING = StepKind("listing", started=ListingStarted, finished=ListingFinished, failed=ListingFailed)
FILE = StepKind("file", started=FileStarted, progress=FileProgress, finished=FileFinished, failed=FileFailed)


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadResult:
    """The result of a download.

    Attributes:
        path: The folder of the model, or its file if it is a single one.
        files: The number of files.
        bytes: Their total size.
        fetched: The number of bytes received over the network.
        cache_hits: The number of files that were present.
        retries: The number of retries.
        resumed: The number of bytes that an earlier process had downloaded.
        seconds: The duration.
        extra: The results of the extra files, in their order.
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
