"""What a source of files can do. Everything here blocks, and is called in worker threads."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from phasebus.initializer.downloads.checks import Digest

SourceKind = Literal["hf", "s3", "gs", "az", "https", "file"]
"""The values of the label ``source``."""

BLOCK = 512 * 1024
"""How many bytes are gathered before they are written: the kernel's pages stay large, and the bytes in a core's cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """A file, as a source lists it.

    Attributes:
        name: Its name below the model's folder, with ``/`` between the parts. Not to be trusted.
        size: In bytes; None if the source does not tell.
        digest: What its content hashes to; None if the source does not tell.
        validator: Something that changes when the content does (an ETag, a modification time); None without.
    """

    name: str
    size: int | None = None
    digest: Digest | None = None
    validator: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What a source has.

    Attributes:
        files: All its files.
        folder: Where they are put unless another destination is named.
        revision: The exact version they are of; None if the source has no versions.
        single: Whether the source names one file, not a folder of files.
        refs: Small files to be written once all is there, by which other tools find it: the path and the content.
    """

    files: tuple[RemoteFile, ...]
    folder: Path
    revision: str | None = None
    single: bool = False
    refs: dict[Path, str] = field(default_factory=dict)


class Body(Protocol):
    """The bytes of a file, on their way.

    Attributes:
        start: The offset of the first byte that will come. It may be 0 where another was asked for.
        size: The size of the whole file in bytes, as the answer tells; None if it does not.
        validator: What to send along when asking for the rest, so as not to get another file's; None without.
    """

    start: int
    size: int | None
    validator: str | None

    def receive(self, room: memoryview) -> memoryview:
        """Return the next bytes; none at the end. They are in `room`, or in memory of their own.

        Raises:
            TransferError: They stopped coming before all were there.
        """

    def stop(self) -> None:
        """Have `receive` end soon. May be called from any thread, and twice."""

    def close(self) -> None:
        """Give back what is held. May be called twice."""


class Source(Protocol):
    """A place that models are fetched from.

    Attributes:
        kind: Which kind of place.
        display: How it is called in everything people see; free of credentials and query strings.
    """

    @property
    def kind(self) -> SourceKind: ...  # noqa: D102  # above

    @property
    def display(self) -> str: ...  # noqa: D102  # above

    def listing(self) -> Listing:
        """Return what there is.

        Raises:
            DownloadError: It is not there, or not for us.
            TransferError: It could not be asked just now.
        """

    def open(self, file: RemoteFile, start: int, validator: str | None) -> Body:
        """Return the bytes of a file, from `start` on if it still is what `validator` tells, else from 0.

        Raises:
            DownloadError: It is not there, or not for us.
            TransferError: It could not be asked just now.
        """

    def close(self) -> None:
        """Give back connections. May be called twice."""
