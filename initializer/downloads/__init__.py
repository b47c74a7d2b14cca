"""Getting a model onto the node."""

from phasebus.initializer.downloads.events import (
    DOWNLOAD,
    DownloadFailed,
    DownloadFinished,
    DownloadProgress,
    DownloadStarted,
)
from phasebus.initializer.downloads.fetch import DownloadError, DownloadResult, fetch

__all__ = [
    "DOWNLOAD",
    "DownloadError",
    "DownloadFailed",
    "DownloadFinished",
    "DownloadProgress",
    "DownloadResult",
    "DownloadStarted",
    "fetch",
]
