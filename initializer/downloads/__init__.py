"""Getting a model onto the node: `fetch`, its events, and what it raises.

Start reading at `fetch`, then `tree` (one source into one folder), `files` (many at once, with retries), `transfer` (one
file, in a worker thread). `sources` says where bytes come from, `partial`, `record` and `checks` what is made of them.
"""

from phasebus.initializer.downloads.checks import Digest
from phasebus.initializer.downloads.errors import DownloadError, TransferError
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
from phasebus.initializer.downloads.protocol import Body, Listing, RemoteFile, Source, SourceFactory, StreamBody
from phasebus.initializer.downloads.settings import DownloadSettings
from phasebus.initializer.downloads.sources.registry import installed_schemes

__all__ = [
    "DOWNLOAD",
    "FILE",
    "Body",
    "Digest",
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
    "Listing",
    "RemoteFile",
    "Source",
    "SourceFactory",
    "StreamBody",
    "TransferError",
    "fetch",
    "installed_schemes",
]
