"""Getting a model onto the node: `fetch`, its events, and what it raises.

Start reading at `fetch`, then `tree` (one source into one folder), `files` (many at once, with retries), `transfer` (one
file, in a worker thread). `sources` says where bytes come from, `partial`, `record` and `checks` what is made of them.
"""

from phasebus.initializer.downloads.errors import DownloadError
from phasebus.initializer.downloads.events import (
    DOWNLOAD,
    FILE,
    DownloadFailed,
    DownloadFinished,
    DownloadProgress,
    DownloadResult,
    DownloadStarted,
    FileFailed,
    FileFinished,
    FileProgress,
    FileStarted,
)
from phasebus.initializer.downloads.fetch import fetch
from phasebus.initializer.downloads.settings import DownloadSettings

__all__ = [
    "DOWNLOAD",
    "FILE",
    "DownloadError",
    "DownloadFailed",
    "DownloadFinished",
    "DownloadProgress",
    "DownloadResult",
    "DownloadSettings",
    "DownloadStarted",
    "FileFailed",
    "FileFinished",
    "FileProgress",
    "FileStarted",
    "fetch",
]
