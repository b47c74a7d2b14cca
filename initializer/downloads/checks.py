"""Is a file what it was said to be? Digests, and the header of safetensors.

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

_LONGEST_HEADER = 100_000_000
"""In bytes; the limit of the safetensors library."""


Algorithm = Literal["sha256", "git-sha1", "crc32"]


class Hasher(Protocol):
    """What hashlib's objects can do, as far as it is used here."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """Take in some more bytes."""

    def hexdigest(self) -> str:
        """Return the digest of all so far."""


@dataclass(frozen=True, slots=True)
class Digest:
    """A digest that a source names for a file.

    Attributes:
        algorithm: ``"sha256"``; ``"git-sha1"``, the id of a git blob, which covers the size as well; or ``"crc32"``, of our
            own for what the source names no digest of: it finds out what a loss of power does.
        value: In lower-case hexadecimal digits.
    """

    algorithm: Algorithm
    value: str


def hasher(algorithm: Algorithm, size: int) -> Hasher:
    """Return a new object that takes in the bytes of a file of `size` bytes."""
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


def safetensors_problem(descriptor: int, size: int) -> str | None:
    """Return what is wrong with the header of an open safetensors file of `size` bytes; None if nothing is.

    The tensors must lie one behind the other and fill the file, so a file that lost or gained bytes is found out.
    """
    if size < 8:
        return f"a safetensors file has 8 bytes at least, and this one {size}"
    (length,) = struct.unpack("<Q", os.pread(descriptor, 8, 0))
    if length > min(_LONGEST_HEADER, size - 8):
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
