"""The protocol of a download source: listing its files, opening a file, and adding a source in a package.

A source is found by the scheme of the model's address. A package adds one with an entry point in the group
``phasebus.sources``: the name is the scheme, the value is a `SourceFactory`. For ``models://team/name``::

    [project.entry-points."phasebus.sources"]
    models = "company_models:models_source"

The factory must be fast: it is called before the download phase and must not connect. All other methods of a source may
block; they are called in worker threads. The caller implements retries, resuming, digests, locks, progress and events, so a
source only lists files and opens them. `StreamBody` turns an iterator of bytes into a `Body`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from phasebus.initializer.downloads.checks import Digest
from phasebus.initializer.downloads.settings import DownloadSettings

BLOCK = 512 * 1024
"""The number of bytes that are buffered before a write: a compromise between system calls and a core's cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """A file in the listing of a source.

    Attributes:
        name: Its name below the model's folder, with ``/`` between the parts. Untrusted: the caller validates it.
        size: Its size in bytes; None if the source does not know.
        digest: The digest of its content; None if the source does not know.
        validator: A value that changes when the content changes (an ETag, a modification time); None if there is none.
    """

    name: str
    size: int | None = None
    digest: Digest | None = None
    validator: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The files of a source.

    Attributes:
        files: All its files.
        folder: The default destination; None for a folder of its own in phasebus's cache.
        revision: The exact version of the files; None if the source has no versions.
        single: Whether the source is one file, not a folder of files.
        refs: Small files to write after the download, with which other tools find it: path and content.
        skipped: Names that the source cannot deliver, such as keys that are not file names.
        in_place: Whether `folder` already contains the complete model, so that no request to the source is needed.
        earlier: Folders with other versions of the files. A file there that has the listed digest is linked into `folder`.
    """

    files: tuple[RemoteFile, ...]
    folder: Path | None = None
    revision: str | None = None
    single: bool = False
    refs: dict[Path, str] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    in_place: bool = False
    earlier: tuple[Path, ...] = ()


class Body(Protocol):
    """The content of a file while it is transferred.

    Attributes:
        start: The offset of the first byte that `receive` returns. It may be 0 although another offset was requested.
        size: The size of the whole file in bytes, according to the response; None if the response has no size.
        validator: The value to pass to `Source.open` when the rest is requested; None if there is none.
    """

    start: int
    size: int | None
    validator: str | None

    def receive(self, room: memoryview) -> memoryview:
        """Return the next bytes, either in `room` or in other memory; an empty view at the end.

        Raises:
            TransferError: The transfer broke before the end; the caller retries.
        """

    def stop(self) -> None:
        """Make a running `receive` return or raise soon. Called from any thread, possibly twice."""

    def close(self) -> None:
        """Release all resources of the body. Possibly called twice."""


class Source(Protocol):
    """A place that models are downloaded from.

    Attributes:
        kind: The value of the metrics' label ``source``: one constant for all addresses of a scheme.
        display: The address as it appears in events, logs and messages, without credentials and query strings.
    """

    @property
    def kind(self) -> str: ...  # noqa: D102  # documented above

    @property
    def display(self) -> str: ...  # noqa: D102  # documented above

    def listing(self) -> Listing:
        """Return the files of the source.

        Raises:
            DownloadError: It does not exist, or access is denied. Not retried.
            TransferError: The request failed and may succeed when retried.
        """

    def open(self, file: RemoteFile, start: int, validator: str | None) -> Body:
        """Return the content of a file, from byte `start` if it still matches `validator`, else from byte 0.

        Raises:
            DownloadError: It does not exist, or access is denied. Not retried.
            TransferError: The request failed and may succeed when retried.
        """

    def close(self) -> None:
        """Abort running calls if possible, and close connections. Called from any thread, possibly twice."""


SourceFactory = Callable[[str, DownloadSettings], Source]
"""Returns the source of an address (``scheme://…``, as the user wrote it). Raises DownloadError for a malformed one."""


class StreamBody:
    """A `Body` that reads an iterator of byte blocks.

    Args:
        blocks: The content from byte `start` on.
        start: The offset of the first byte.
        size: The size of the whole file in bytes; None if unknown.
        validator: See `Body`.
    """

    def __init__(
        self, blocks: Iterator[bytes], *, start: int = 0, size: int | None = None, validator: str | None = None
    ) -> None:
        self._blocks = blocks
        self._stopped = False
        self.start = start
        self.size = size
        self.validator = validator

    def receive(self, room: memoryview) -> memoryview:
        """Return the next block; an empty view at the end."""
        return memoryview(b"" if self._stopped else next((block for block in self._blocks if block), b""))

    def stop(self) -> None:
        """End the transfer before the next block."""
        self._stopped = True

    def close(self) -> None:
        """Close the iterator if it is a generator that is not running."""
        self._stopped = True
