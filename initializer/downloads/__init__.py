"""Downloads: a library that makes a model available on this machine. The entry is `fetch`.

Read `fetch` first, then `download` (one source into one folder), `transfers` (its files side by side, with retries),
`transfer` (one file, in a worker thread). `protocol` is the interface of a source, `sources` has the built-in ones;
`names` validates the names in a listing; `partial`, `record`, `inventory` and `checks` manage the files on the disk.
"""

from phasebus.initializer.downloads.checks import Digest
from phasebus.initializer.downloads.errors import DownloadError, TransferError
from phasebus.initializer.downloads.events import (
    DOWNLOAD,
    FILE,
    LISTING,
    DownloadFailed,
    DownloadFinished,
    DownloadProgress,
    DownloadResult,
    DownloadStarted,
    FileFailed,
    FileFinished,
    FileProgress,
    FileStarted,
    ListingFailed,
    ListingFinished,
    ListingStarted,
)
from phasebus.initializer.downloads.fetch import fetch
from phasebus.initializer.downloads.protocol import Body, Listing, RemoteFile, Source, SourceFactory, StreamBody
from phasebus.initializer.downloads.settings import DownloadSettings
from phasebus.initializer.downloads.sources.registry import installed_schemes

__all__ = [
    "DOWNLOAD",
    "FILE",
    "LISTING",
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
    "ListingFailed",
    "ListingFinished",
    "ListingStarted",
    "RemoteFile",
    "Source",
    "SourceFactory",
    "StreamBody",
    "TransferError",
    "fetch",
    "installed_schemes",
]
