"""Checking that a GGUF file has all of its tensors (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md)."""

from __future__ import annotations

import os
import struct
from math import prod
from typing import Final

_MAGIC: Final = b"GGUF"
_VERSIONS: Final = frozenset({2, 3})
_BLOCK: Final = 2**20
_MAX_HEADER: Final = 64 * 2**20
"""Maximum size of a header that is read, in bytes. A large vocabulary takes 16 MiB."""
_MAX_NAME: Final = 65_535
_MAX_DIMENSIONS: Final = 8
_FIXED: Final = 24
"""Size of the part of the header before the first key, in bytes."""

_VALUES: Final = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""The sizes of the types of values, in bytes."""

_STRING, _ARRAY, _UINT32 = 8, 9, 4

_TENSORS: Final = {
    **dict.fromkeys((0, 26), (1, 4)),
    **dict.fromkeys((1, 25, 30), (1, 2)),
    **dict.fromkeys((27, 28), (1, 8)),
    **dict.fromkeys((2, 20), (32, 18)),
    **dict.fromkeys((11, 21), (256, 110)),
    24: (1, 1),
    3: (32, 20),
    6: (32, 22),
    7: (32, 24),
    8: (32, 34),
    39: (32, 17),
    10: (256, 84),
    12: (256, 144),
    13: (256, 176),
    14: (256, 210),
    15: (256, 292),
    16: (256, 66),
    17: (256, 74),
    18: (256, 98),
    19: (256, 50),
    22: (256, 82),
    23: (256, 136),
    29: (256, 56),
    34: (256, 54),
    35: (256, 66),
}
"""The number of elements of a block, and its size in bytes, by the type of a tensor; of other types, only the beginning is checked."""


class _CutOffError(Exception):
    """Raised when the file ends inside its header."""


class _UnknownError(Exception):
    """Raised when the header has a form that is not checked."""


class _Reader:
    """Reads the header of an open file in blocks."""

    def __init__(self, descriptor: int, start: int) -> None:
        self._descriptor = descriptor
        self._buffer = b""
        self._start = self._at = start

    @property
    def position(self) -> int:
        """The offset of the next byte."""
        return self._at

    def skip(self, count: int) -> None:
        """Skip some bytes."""
        self._at += count
        if self._at > _MAX_HEADER:
            raise _UnknownError

    def read(self, count: int) -> bytes:
        """Return the next bytes."""
        begin, self._at = self._at, self._at + count
        if self._at > _MAX_HEADER:
            raise _UnknownError
        if self._at > self._start + len(self._buffer):
            self._start, self._buffer = begin, os.pread(self._descriptor, max(count, _BLOCK), begin)
            if len(self._buffer) < count:
                raise _CutOffError
        return self._buffer[begin - self._start : self._at - self._start]

    def number(self, form: str) -> int:
        """Return the next number, in a form of ``struct``."""
        value: int = struct.unpack(form, self.read(struct.calcsize(form)))[0]
        return value

    def name(self) -> bytes:
        """Return the next string, which is a name."""
        length = self.number("<Q")
        if length > _MAX_NAME:
            raise _UnknownError
        return self.read(length)

    def skip_strings(self, count: int) -> None:
        """Skip some strings. A vocabulary has hundreds of thousands of them."""
        for _ in range(count):
            begin = self._at - self._start
            length = self._buffer[begin : begin + 8]
            if len(length) == 8:
                self._at += 8 + int.from_bytes(length, "little")
            else:
                self.skip(self.number("<Q"))


def gguf_problem(descriptor: int, size: int) -> str | None:
    """Return the problem of an open GGUF file of `size` bytes; None without one, or if its form is not known."""
    if (start := os.pread(descriptor, len(_MAGIC), 0)) != _MAGIC:
        return f"a GGUF file begins with 'GGUF', and this one with {start!r}"
    if size < _FIXED:
        return None
    try:
        end = _end_of_tensors(_Reader(descriptor, len(_MAGIC)))
    except _CutOffError:
        return f"it is cut off: it ends at byte {size}, inside its header"
    except _UnknownError:
        return None
    return f"it is cut off: it ends at byte {size}, and its tensors at byte {end}" if size < end else None


def _end_of_tensors(reader: _Reader) -> int:
    """Return the offset of the byte behind the last tensor, as far as the types are known."""
    if reader.number("<I") not in _VERSIONS:
        raise _UnknownError
    tensors, values, alignment = reader.number("<Q"), reader.number("<Q"), 32
    for _ in range(values):
        key, kind = reader.name(), reader.number("<I")
        if key == b"general.alignment" and kind == _UINT32:
            alignment = reader.number("<I") or alignment
        else:
            _skip_value(reader, kind)
    end = 0
    for _ in range(tensors):
        reader.name()
        if (dimensions := reader.number("<I")) > _MAX_DIMENSIONS:
            raise _UnknownError
        shape = [reader.number("<Q") for _ in range(dimensions)]
        kind, offset = reader.number("<I"), reader.number("<Q")
        elements, block = _TENSORS.get(kind, (1, 0))
        end = max(end, offset + -(-prod(shape) // elements) * block)
    return -(-reader.position // alignment) * alignment + end if tensors else reader.position


def _skip_value(reader: _Reader, kind: int) -> None:
    if kind == _STRING:
        reader.skip_strings(1)
    elif kind == _ARRAY:
        item, count = reader.number("<I"), reader.number("<Q")
        if item == _STRING:
            reader.skip_strings(count)
        else:
            reader.skip(_size_of(item) * count)
    else:
        reader.skip(_size_of(kind))


def _size_of(kind: int) -> int:
    if kind not in _VALUES:
        raise _UnknownError
    return _VALUES[kind]
