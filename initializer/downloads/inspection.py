"""Checking a model on this machine that is used in place, or that is to be copied."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from phasebus.initializer.downloads.checks import MAX_POINTER, WEIGHT_SUFFIXES, content_problem, is_model_file
from phasebus.initializer.downloads.errors import DownloadError
from phasebus.initializer.downloads.modes import is_bookkeeping
from phasebus.initializer.downloads.paths import expanded
from phasebus.initializer.downloads.settings import DownloadMode
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

_CONFIGS = ("config.json", "params.json", "model_index.json")
"""File names of a model's configuration, in the formats of transformers, Mistral and diffusers."""


def inspect_model(model: str, path: Path, mode: DownloadMode) -> tuple[Path, list[int]]:
    """Check a model that is used in place; return its path, and the sizes of its files in bytes.

    Raises:
        DownloadError: There is no model, or one of its files is missing, incomplete or not readable.
    """
    path = expanded(path).absolute()
    with readable(path):
        return _inspect_model(model, path, mode)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raise an error of the operating system in the block as a `DownloadError`."""
    try:
        yield
    except OSError as error:
        raise DownloadError(f"{error.filename or path} cannot be read: {error.strerror or error}") from error


def exists(path: Path) -> bool:
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


def _missing_config(folder: Path) -> str:
    """Return why a folder without a configuration is not a model, and what to do, as the end of a message."""
    if os.path.isfile(folder / "adapter_config.json"):
        return "it is an adapter; name the model that it adapts, and the adapter in the arguments of the engine"
    if folder.name.startswith("models--") and os.path.isdir(folder / "snapshots"):
        repository = folder.name.removeprefix("models--").replace("--", "/", 1)
        return f"it is a folder of the hub's cache; write hf://{repository}, or name a folder in {folder / 'snapshots'}"
    return "it has no config.json, and no params.json of Mistral's format"


def hub_hint(model: str) -> str:
    """Return how a model of the hub is written, as the end of a message; empty if `model` can only be a path."""
    if model.startswith(_PATHS):
        return ""
    return f", or {f'hf://{model}' if _WORD.fullmatch(model) else 'org/name'} for a model of the hub"


def _inspect_model(model: str, path: Path, mode: DownloadMode) -> tuple[Path, list[int]]:
    if not exists(path):
        raise DownloadError(
            f"there is no model at {model!r} (as {path}); give the path of a folder with a config.json, as `hf download` "
            f"makes it{hub_hint(model)}"
        )
    if os.path.isfile(path):
        return path, [_inspect_file(path)]
    if mode == "MODEL_AND_TOKENIZER":
        for link in sorted(each for each in path.iterdir() if is_model_file(each.name) and each.is_symlink()):
            if not os.path.exists(link):
                raise DownloadError(f"{link} is a symbolic link to a file that does not exist; copy the model again")
    if not any(os.path.isfile(path / name) for name in _CONFIGS):
        raise DownloadError(f"{path} is not a model: {_missing_config(path)}")
    if mode == "MODEL_AND_TOKENIZER":
        _check_weights(path)
    files = [
        file
        for file in path.rglob("*")
        if os.path.isfile(file) and not is_bookkeeping(file.relative_to(path).as_posix())
    ]
    check_unfinished(files)
    for file in files:
        _check_content(file, never_empty=file.parent == path and file.suffix in _NEVER_EMPTY)
    return path, [file.stat().st_size for file in files]


def _inspect_file(path: Path) -> int:
    """Check a model that is one file; return its size in bytes."""
    if path.suffix != ".gguf":
        raise DownloadError(f"{path} is not a model: a model is a folder, or a .gguf file")
    _check_content(path, never_empty=False)
    check_unfinished([path])
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


def check_unfinished(files: Iterable[Path]) -> None:
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
