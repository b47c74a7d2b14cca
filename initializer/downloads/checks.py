"""Checks of a file: its digest, and that a file of weights is whole, in the formats safetensors, GGUF and PyTorch.

The format of safetensors: https://huggingface.co/docs/safetensors/#format. The id of a git blob:
https://git-scm.com/book/en/v2/Git-Internals-Git-Objects.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from phasebus.initializer.downloads.gguf import gguf_problem

_MAX_HEADER = 100_000_000
"""Maximum size of a header in bytes; the limit of the safetensors library."""

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
MAX_POINTER = 1024
"""Maximum size of a git-lfs pointer, in bytes (https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md)."""

_PYTORCH = (".bin", ".pt", ".pth")
_ZIP, _END_OF_ZIP = b"PK\x03\x04", b"PK\x05\x06"
_MAX_END_OF_ZIP = 22 + 65_535
"""Maximum size of the record at the end of a zip archive, in bytes
(https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, 4.3.16)."""

WEIGHT_SUFFIXES = (".safetensors", ".gguf", *_PYTORCH)
"""Suffixes of files of which `content_problem` checks the format."""

_MODEL_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".json", ".model", ".jinja")

Algorithm = Literal["sha256", "git-sha1", "crc32"]


class Hasher(Protocol):
    """The used part of the interface of hashlib's objects."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """Add some bytes."""

    def hexdigest(self) -> str:
        """Return the digest of all bytes so far."""


@dataclass(frozen=True, slots=True)
class Digest:
    """A digest of a file.

    Attributes:
        algorithm: ``"sha256"``; ``"git-sha1"``, the id of a git blob, which includes the size; or ``"crc32"``, our own
            checksum for files without a listed digest, which detects the effects of a loss of power.
        value: Lower-case hexadecimal digits.
    """

    algorithm: Algorithm
    value: str


def hasher(algorithm: Algorithm, size: int) -> Hasher:
    """Return a new hasher for a file of `size` bytes."""
    if algorithm == "sha256":
        return hashlib.sha256()
    return _Crc32() if algorithm == "crc32" else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


class _Crc32:
    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        self._value = zlib.crc32(data, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


def is_model_file(name: str) -> bool:
    """Return whether an engine may read a file with this name: weights, a configuration or a tokenizer."""
    return name.endswith(_MODEL_SUFFIXES)


def content_problem(name: str, descriptor: int, size: int) -> str | None:
    """Return the problem of an open file's content, for the format that its name implies; None without one.

    Args:
        name: The file's name.
        descriptor: The open file.
        size: Its size in bytes.
    """
    if size <= MAX_POINTER and is_model_file(name) and os.pread(descriptor, len(_LFS_POINTER), 0) == _LFS_POINTER:
        return "it is a git-lfs pointer in place of the content; run `git lfs pull`"
    if name.endswith(".safetensors"):
        return safetensors_problem(descriptor, size)
    if name.endswith(".gguf"):
        return gguf_problem(descriptor, size)
    return _zip_problem(descriptor, size) if name.endswith(_PYTORCH) else None


def _zip_problem(descriptor: int, size: int) -> str | None:
    """Return the problem of an open file in the format of PyTorch; None without one, or if it is not a zip archive."""
    if os.pread(descriptor, len(_ZIP), 0) != _ZIP:
        return None
    is_whole = _END_OF_ZIP in os.pread(descriptor, _MAX_END_OF_ZIP, max(0, size - _MAX_END_OF_ZIP))
    return None if is_whole else "it is cut off: it is a zip archive, the format of PyTorch, without its end"


def safetensors_problem(descriptor: int, size: int) -> str | None:
    """Return the problem of the header of an open safetensors file of `size` bytes; None without one.

    The tensors must be contiguous and fill the file, so missing or additional bytes are detected.
    """
    if size < 8:
        return f"a safetensors file has at least 8 bytes, and this one {size}"
    (length,) = struct.unpack("<Q", os.pread(descriptor, 8, 0))
    if length > min(_MAX_HEADER, size - 8):
        return f"its header claims {length} bytes, in a file of {size}"
    try:
        header = json.loads(os.pread(descriptor, length, 8))
        spans = sorted(_span(name, tensor) for name, tensor in header.items() if name != "__metadata__")
    except (ValueError, AttributeError, TypeError, KeyError, RecursionError) as error:
        return f"its header is malformed ({type(error).__name__})"
    if spans and spans[0][0] != 0:
        return f"its first tensor begins at byte {spans[0][0]}, not at 0"
    for (_, end), (begin, _) in itertools.pairwise(spans):
        if begin != end:
            return f"a tensor begins at byte {begin}, where the one before ends at {end}"
    described = spans[-1][1] if spans else 0
    if described != size - 8 - length:
        return f"its header describes {described} bytes of tensors, and {size - 8 - length} are there"
    return None


def _span(name: str, tensor: Mapping[str, Any]) -> tuple[int, int]:
    begin, end = tensor["data_offsets"]
    if not isinstance(begin, int) or not isinstance(end, int) or not 0 <= begin <= end:
        raise ValueError(name)
    return begin, end
