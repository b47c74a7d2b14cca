"""``file://`` or a path: a model on this machine, used in place or copied to a destination."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from urllib.parse import unquote

from phasebus.initializer.downloads.checks import MAX_POINTER, WEIGHT_SUFFIXES, content_problem, is_model_file
from phasebus.initializer.downloads.errors import DownloadError, TransferError
from phasebus.initializer.downloads.modes import is_bookkeeping
from phasebus.initializer.downloads.names import is_remote_name
from phasebus.initializer.downloads.paths import STATE, expanded
from phasebus.initializer.downloads.protocol import Listing, RemoteFile
from phasebus.initializer.downloads.settings import DownloadMode, DownloadSettings
from phasebus.initializer.downloads.weights import (
    missing_parts_problem,
    missing_shards_problem,
    unfinished_download,
)

_OBJECTS = frozenset({"config.json", "params.json", "tokenizer_config.json", "generation_config.json"})
_MAX_OBJECT = 2**20
"""Maximum size of a file of `_OBJECTS` that is parsed, in bytes."""

_PATHS = ("/", "./", "../", "~", "file:")
"""What an address begins with that can only be a path."""

_WORD = re.compile(r"[\w.-]+")
"""A name without an organization, as the hub has for its oldest models."""

_NEVER_EMPTY = frozenset({".json", ".model", ".bin", ".pt", ".pth"})

_ARIA2 = ".aria2"
"""The suffix of the file in which aria2 keeps what it has of another, until that is complete."""

_CONFIGS = ("config.json", "params.json")
"""File names of a model's configuration, in the format of transformers and in Mistral's."""


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
        with _readable(self.path):
            if not _exists(self.path):
                raise DownloadError(
                    f"{self._model!r} does not exist (as {self.path}); check the path{_hub_hint(self._model)}"
                )
            if os.path.isfile(self.path):
                _check_unfinished([self.path])
                return Listing(files=(_describe(self.path, self.path.name),), single=True)
            names = sorted(_walk(self.path))
            _check_unfinished(self.path / name for name in names)
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
        self._stopped = False
        self.start = start
        self.size = file.size
        self.validator = file.validator

    def receive(self, room: memoryview) -> memoryview:
        """Read the next bytes into `room` and return them; an empty view at the end."""
        try:
            if self._file is None:
                self._file = self._path.open("rb", buffering=0)
                self._file.seek(self.start)
            return room[: 0 if self._stopped else self._file.readinto(room)]
        except OSError as error:
            raise TransferError(f"{self._path} cannot be read: {error.strerror}") from error

    def stop(self) -> None:
        """End the transfer before the next block."""
        self._stopped = True

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def inspect_model(model: str, path: Path, mode: DownloadMode) -> tuple[Path, list[int]]:
    """Check a model that is used in place; return its path, and the sizes of its files in bytes.

    Raises:
        DownloadError: There is no model, or one of its files is missing, incomplete or not readable.
    """
    path = expanded(path).absolute()
    with _readable(path):
        return _inspect_model(model, path, mode)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Raise an error of the operating system in the block as a `DownloadError`."""
    try:
        yield
    except OSError as error:
        raise DownloadError(f"{error.filename or path} cannot be read: {error.strerror or error}") from error


def _exists(path: Path) -> bool:
    """Return whether `path` exists; False for a name that no file can have.

    Raises:
        PermissionError: It is in a folder that this user may not search.
    """
    try:
        path.stat()
    except PermissionError:
        raise
    except (OSError, ValueError):
        return False
    return True


def _hub_hint(model: str) -> str:
    """Return how a model of the hub is written, as the end of a message; empty if `model` can only be a path."""
    if model.startswith(_PATHS):
        return ""
    return f", or {f'hf://{model}' if _WORD.fullmatch(model) else 'org/name'} for a model of the hub"


def _inspect_model(model: str, path: Path, mode: DownloadMode) -> tuple[Path, list[int]]:
    if not _exists(path):
        raise DownloadError(
            f"there is no model at {model!r} (as {path}); give the path of a folder with a config.json, as `hf download` "
            f"makes it{_hub_hint(model)}"
        )
    if os.path.isfile(path):
        return path, [_inspect_file(path)]
    if mode == "MODEL_AND_TOKENIZER":
        for link in sorted(each for each in path.iterdir() if is_model_file(each.name) and each.is_symlink()):
            if not os.path.exists(link):
                raise DownloadError(f"{link} is a symbolic link to a file that does not exist; copy the model again")
    if not any(os.path.isfile(path / name) for name in _CONFIGS):
        raise DownloadError(f"{path} is not a model: it has no config.json, and no params.json of Mistral's format")
    if mode == "MODEL_AND_TOKENIZER":
        _check_weights(path)
    files = [
        file
        for file in path.rglob("*")
        if os.path.isfile(file) and not is_bookkeeping(file.relative_to(path).as_posix())
    ]
    _check_unfinished(files)
    for file in files:
        _check_content(file, never_empty=file.parent == path and file.suffix in _NEVER_EMPTY)
    return path, [file.stat().st_size for file in files]


def _inspect_file(path: Path) -> int:
    """Check a model that is one file; return its size in bytes."""
    if path.suffix != ".gguf":
        raise DownloadError(f"{path} is not a model: a model is a folder, or a .gguf file")
    _check_content(path, never_empty=False)
    _check_unfinished([path])
    if (problem := missing_parts_problem(path)) is not None:
        raise DownloadError(f"{problem}; copy all of its parts")
    return path.stat().st_size


def _check_weights(folder: Path) -> None:
    """Reject a model of which weights are missing."""
    if (problem := missing_shards_problem(folder)) is not None:
        raise DownloadError(f"{problem}; copy the model again")
    if (partial := unfinished_download(folder)) is not None:
        raise DownloadError(
            f"{folder} is incomplete: it has no weights, and {partial} of a download that was interrupted; download it again"
        )


def _check_unfinished(files: Iterable[Path]) -> None:
    """Reject a file of a model that aria2 has not completed; it has its full size from the start, and zeros inside."""
    for file in files:
        if is_model_file(file.name) and os.path.isfile(f"{file}{_ARIA2}"):
            raise DownloadError(
                f"{file} is incomplete: {file.name}{_ARIA2} is of a download by aria2 that was interrupted; continue it, or "
                "copy the file again"
            )


def _check_content(file: Path, *, never_empty: bool) -> None:
    size = file.stat().st_size
    if never_empty and not size:
        raise DownloadError(f"{file} is empty; copy it again")
    if never_empty and file.name in _OBJECTS and size <= _MAX_OBJECT:
        try:
            json.loads(file.read_bytes())
        except (ValueError, RecursionError) as error:
            raise DownloadError(f"{file} cannot be read as JSON ({type(error).__name__}); copy it again") from None
    if file.suffix not in WEIGHT_SUFFIXES and not (is_model_file(file.name) and size <= MAX_POINTER):
        return
    with file.open("rb") as opened:
        problem = content_problem(file.name, opened.fileno(), os.fstat(opened.fileno()).st_size)
    if problem is not None:
        raise DownloadError(f"{file} is incomplete or damaged: {problem}; copy it again")


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
