"""What a download came to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


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
