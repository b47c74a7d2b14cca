"""``file://`` or a path: a model on this machine, used in place or copied to a destination."""

from __future__ import annotations

import os
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from urllib.parse import unquote

from phasebus.initializer.downloads.errors import CorruptError, DownloadError, TransferError
from phasebus.initializer.downloads.inspection import check_unfinished, exists, hub_hint, readable
from phasebus.initializer.downloads.modes import is_bookkeeping
from phasebus.initializer.downloads.names import is_remote_name
from phasebus.initializer.downloads.paths import STATE, expanded
from phasebus.initializer.downloads.protocol import Listing, RemoteFile
from phasebus.initializer.downloads.settings import DownloadSettings


def local_source(model: str, settings: DownloadSettings) -> LocalSource:
    """Return the source of a ``file://`` URL. ``#`` and ``?`` are a part of its path."""
    host, _, path = model.partition("://")[2].partition("/")
    if host.lower() not in {"", "localhost"}:
        raise DownloadError(f"{model!r} names the host {host!r}; write file:///path, with three slashes")
    return LocalSource(model, Path(unquote(f"/{path}")))


class LocalSource:
    """A folder or a file on this machine.

    Args:
        model: The original address, for messages.
        path: Its path.
    """

    kind = "file"

    def __init__(self, model: str, path: Path) -> None:
        self.display = model
        self._model = model
        self.path = expanded(path).absolute()

    def listing(self) -> Listing:
        """Return the files in the folder, including those behind symbolic links, or the single file."""
        with readable(self.path):
            if not exists(self.path):
                raise DownloadError(
                    f"{self._model!r} does not exist (as {self.path}); check the path{hub_hint(self._model)}"
                )
            if os.path.isfile(self.path):
                check_unfinished([self.path])
                return Listing(files=(_describe(self.path, self.path.name),), single=True)
            names = sorted(_walk(self.path))
            check_unfinished(self.path / name for name in names)
            return Listing(
                files=tuple(_describe(self.path / name, name) for name in names if is_remote_name(name)),
                skipped=tuple(name for name in names if not is_remote_name(name)),
            )

    def check_destination(self, folder: Path) -> None:
        """Reject a folder inside the model, which would be copied into itself by each start.

        Args:
            folder: The absolute path of the destination.

        Raises:
            DownloadError: It is inside.
        """
        if self.path.resolve() in folder.resolve().parents:
            raise DownloadError(f"the destination {folder} is inside the model {self.path}; choose one outside of it")

    def open(self, file: RemoteFile, start: int, validator: str | None) -> LocalBody:
        """Open a file."""
        path = self.path if os.path.isfile(self.path) else self.path / file.name
        return LocalBody(path, start if validator == file.validator else 0, file)

    def close(self) -> None:
        """Do nothing, as there is no connection."""


class LocalBody:
    """The content of a local file; see `Body`."""

    def __init__(self, path: Path, start: int, file: RemoteFile) -> None:
        self._path = path
        self._file: FileIO | None = None
        self._began = 0
        self._stopped = False
        self.start = start
        self.size = file.size
        self.validator = file.validator

    def receive(self, room: memoryview) -> memoryview:
        """Read the next bytes into `room` and return them; an empty view at the end.

        Raises:
            CorruptError: The file was written to meanwhile, so the bytes may be of two versions.
            TransferError: It cannot be read.
        """
        try:
            if self._file is None:
                self._file = self._path.open("rb", buffering=0)
                self._began = os.fstat(self._file.fileno()).st_mtime_ns
                self._file.seek(self.start)
            count = 0 if self._stopped else self._file.readinto(room)
            if not count and not self._stopped and os.fstat(self._file.fileno()).st_mtime_ns != self._began:
                raise CorruptError(f"{self._path} was changed while it was copied")
            return room[:count]
        except OSError as error:
            raise TransferError(f"{self._path} cannot be read: {error.strerror}") from error

    def stop(self) -> None:
        """End the transfer before the next block."""
        self._stopped = True

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def _walk(root: Path) -> Iterator[str]:
    """Yield the names of the files below `root`, including those behind symbolic links.

    Raises:
        DownloadError: A symbolic link is broken, or its target is a folder above it, so it cannot be copied.
    """

    def walk(folder: Path, name: str, above: tuple[Path, ...]) -> Iterator[str]:
        for entry in os.scandir(folder):
            entry_name = f"{name}{entry.name}"
            if entry.name == STATE or is_bookkeeping(f"{entry_name}/"):
                continue
            if entry.is_dir():
                inside = Path(entry.path)
                if inside.resolve() in above:
                    raise DownloadError(f"{entry.path} is a symbolic link into a folder above it; remove the link")
                yield from walk(inside, f"{entry_name}/", (*above, inside.resolve()))
            elif entry.is_file():
                yield entry_name
            elif entry.is_symlink():
                raise DownloadError(f"{entry.path} is a symbolic link to nothing; remove the link, or copy its file")

    return walk(root, "", (root.resolve(),))


def _describe(path: Path, name: str) -> RemoteFile:
    status = path.stat()
    return RemoteFile(name=name, size=status.st_size, validator=f"{status.st_mtime_ns}-{status.st_ino}")
