"""The hub's description of a repository, validated (https://huggingface.co/docs/hub/api)."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from phasebus.initializer.downloads.checks import Digest
from phasebus.initializer.downloads.errors import DownloadError
from phasebus.initializer.downloads.protocol import RemoteFile

COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")

_OTHER_FORMATS = (
    "original/*",
    "metal/*",
    "onnx/*",
    "coreml/*",
    "openvino/*",
    "consolidated*.pth",
    "pytorch_model*.bin",
    "pytorch_model*.bin.index.json",
    "tf_model*.h5",
    "flax_model*.msgpack",
    "model.ckpt*",
    "rust_model.ot",
)
"""Names of files with the same weights for other frameworks, in repositories that also have safetensors."""


@dataclass(frozen=True, slots=True)
class HubRepository:
    """A revision of a repository.

    Attributes:
        commit: Its commit.
        files: Its files; empty if the response lists none, as that of some mirrors.
    """

    commit: str
    files: tuple[RemoteFile, ...]


def read_repository(content: bytes, display: str) -> HubRepository:
    """Parse and validate the hub's response.

    Raises:
        DownloadError: It does not describe a repository, or its commit, which names a folder of the cache, is invalid.
    """
    with _validated(display):
        described = json.loads(content)
        commit = described["sha"]
        files = tuple(map(_file, described.get("siblings", ())))
    if not isinstance(commit, str) or not COMMIT.fullmatch(commit):
        raise DownloadError(
            f"the hub names {str(commit)[:80]!r} as the commit of {display}, which is not a commit; check HF_ENDPOINT"
        )
    return HubRepository(commit, files)


def read_tree(content: bytes, display: str) -> list[RemoteFile]:
    """Parse and validate a page of the hub's tree of a revision, and return its files.

    Raises:
        DownloadError: It is no such page.
    """
    with _validated(display):
        return [_file(_sibling(entry)) for entry in json.loads(content) if entry["type"] == "file"]


@contextmanager
def _validated(display: str) -> Iterator[None]:
    """Raise an error of the block, which reads the hub's response, as a `DownloadError`."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DownloadError(
            f"the response for {display} is no listing of the hub ({type(error).__name__}); check HF_ENDPOINT"
        ) from None


def without_duplicate_weights(files: Iterable[RemoteFile]) -> list[RemoteFile]:
    """Return `files` without weights in other formats, if there are safetensors."""
    files = list(files)
    if not any(file.name.endswith(".safetensors") and "/" not in file.name for file in files):
        return files
    return [file for file in files if not any(fnmatch.fnmatchcase(file.name, each) for each in _OTHER_FORMATS)]


def _sibling(entry: dict[str, Any]) -> dict[str, Any]:
    """Return an entry of a tree in the form of a sibling."""
    lfs = entry.get("lfs") and {"size": entry["lfs"]["size"], "sha256": entry["lfs"]["oid"]}
    return {"rfilename": entry["path"], "size": entry.get("size"), "blobId": entry.get("oid"), "lfs": lfs}


def _file(sibling: dict[str, Any]) -> RemoteFile:
    name, lfs, blob = sibling["rfilename"], sibling.get("lfs"), sibling.get("blobId")
    if not isinstance(name, str):
        raise TypeError
    if lfs:
        return RemoteFile(name=name, size=lfs["size"], digest=Digest("sha256", lfs["sha256"]), validator=blob)
    digest = Digest("git-sha1", blob) if blob else None
    return RemoteFile(name=name, size=sibling.get("size"), digest=digest, validator=blob)
