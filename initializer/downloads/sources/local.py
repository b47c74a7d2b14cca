"""``file://`` or a path: a model that is on this machine already, or files to be copied from there."""

from __future__ import annotations

import os
from io import FileIO
from pathlib import Path
from urllib.parse import unquote, urlsplit

from phasebus.initializer.downloads.checks import safetensors_problem
from phasebus.initializer.downloads.errors import DownloadError, TransferError
from phasebus.initializer.downloads.paths import STATE, default_folder
from phasebus.initializer.downloads.settings import DownloadSettings
from phasebus.initializer.downloads.sources.protocol import Listing, RemoteFile


def local_source(model: str, settings: DownloadSettings) -> LocalSource:
    """Return the source of a ``file://`` URL."""
    return LocalSource(model, Path(unquote(urlsplit(model).path)))


class LocalSource:
    """A folder or a file on this machine.

    Args:
        model: What was asked for, for messages.
        path: Where that is.
    """

    kind: str = "file"

    def __init__(self, model: str, path: Path) -> None:
        self.display = model
        self._model = model
        self.path = path.expanduser().absolute()

    def listing(self) -> Listing:
        """Return the files in the folder; or the one file."""
        if not self.path.exists():
            raise DownloadError(f"there is nothing at {self._model!r} (looked for {self.path}); check the path")
        single = self.path.is_file()
        files = [self.path] if single else [each for each in sorted(self.path.rglob("*")) if each.is_file()]
        root = self.path.parent if single else self.path
        return Listing(
            files=tuple(
                _described(each, each.relative_to(root).as_posix())
                for each in files
                if STATE not in each.relative_to(root).parts
            ),
            folder=default_folder(self.kind, str(self.path)),
            single=single,
        )

    def open(self, file: RemoteFile, start: int, validator: str | None) -> LocalBody:
        """Open a file."""
        path = self.path if self.path.is_file() else self.path / file.name
        return LocalBody(path, start if validator == file.validator else 0, file)

    def close(self) -> None:
        """Hold nothing back."""


class LocalBody:
    """The bytes of a local file; see `Body`."""

    def __init__(self, path: Path, start: int, file: RemoteFile) -> None:
        self._path = path
        self._file: FileIO | None = None
        self._stopped = False
        self.start = start
        self.size = file.size
        self.validator = file.validator

    def receive(self, room: memoryview) -> memoryview:
        """Return the next bytes, which are in `room`; none at the end."""
        try:
            if self._file is None:
                self._file = self._path.open("rb", buffering=0)
                self._file.seek(self.start)
            return room[: 0 if self._stopped else self._file.readinto(room)]
        except OSError as error:
            raise TransferError(f"{self._path} cannot be read: {error.strerror}") from error

    def stop(self) -> None:
        """End the reading before the next block."""
        self._stopped = True

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def inspect(model: str, path: Path) -> tuple[Path, list[int]]:
    """Return where a model that is used where it is lies, and the sizes of its files, in bytes.

    Raises:
        DownloadError: There is no model, or one of its files is not whole.
    """
    path = path.expanduser()
    if not path.exists():
        raise DownloadError(
            f"there is no model at {model!r} (looked for the folder {path.absolute()}); "
            "give the path of a folder with a config.json, as `hf download` makes it"
        )
    if path.is_file() and path.suffix == ".gguf":
        return path.absolute(), [path.stat().st_size]
    if not (path / "config.json").is_file():
        raise DownloadError(f"{path.absolute()} is no model: it has no config.json")
    files = [file for file in path.rglob("*") if file.is_file()]
    for file in files:
        if file.suffix == ".safetensors":
            with file.open("rb") as opened:
                problem = safetensors_problem(opened.fileno(), os.fstat(opened.fileno()).st_size)
            if problem is not None:
                raise DownloadError(f"{file.absolute()} is not whole: {problem}; copy it anew")
    return path.absolute(), [file.stat().st_size for file in files]


def _described(path: Path, name: str) -> RemoteFile:
    status = path.stat()
    return RemoteFile(name=name, size=status.st_size, validator=f"{status.st_mtime_ns}-{status.st_ino}")
