"""GGUF files that are cut off are found by their headers."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phasebus.initializer.downloads.gguf import gguf_problem

ALIGNMENT = 64


def string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def tensor(name: bytes, kind: int, offset: int, *shape: int) -> bytes:
    return string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def gguf(*, version: int = 3, kind: int = 12) -> bytes:
    """Return a file with values of each kind, a tensor of half precision, and one that is quantized (Q4_K)."""
    values = [
        string(b"general.alignment") + struct.pack("<II", 4, ALIGNMENT),
        string(b"general.architecture") + struct.pack("<I", 8) + string(b"llama"),
        string(b"tokens") + struct.pack("<IIQ", 9, 8, 2000) + b"".join(string(b"t" * (i % 1500)) for i in range(2000)),
        string(b"scores") + struct.pack("<IIQ3f", 9, 6, 3, 1, 2, 3),
        string(b"flag") + struct.pack("<I?", 7, True),
    ]
    tensors = [tensor(b"half", 1, 0, 100), tensor(b"quantized", kind, 256, 256, 2)]
    header = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(values)) + b"".join([*values, *tensors])
    return header + bytes(-len(header) % ALIGNMENT) + bytes(256 + 2 * 144)


def problem_of(content: bytes, folder: Path) -> str | None:
    path = folder / "model.gguf"
    path.write_bytes(content)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return gguf_problem(descriptor, len(content))
    finally:
        os.close(descriptor)


def test_whole_file_has_no_problem(tmp_path: Path) -> None:
    assert problem_of(gguf(), tmp_path) is None
    assert problem_of(gguf() + bytes(32), tmp_path) is None


@pytest.mark.parametrize(("cut", "message"), [(1, "and its tensors at byte"), (600, "inside its header")])
def test_file_that_is_cut_off_is_a_problem(cut: int, message: str, tmp_path: Path) -> None:
    content = gguf()[:-cut]
    assert f"it is cut off: it ends at byte {len(content)}, {message}" in str(problem_of(content, tmp_path))


def test_file_of_another_format_is_a_problem(tmp_path: Path) -> None:
    assert problem_of(b"<html>", tmp_path) == "a GGUF file begins with 'GGUF', and this one with b'<htm'"


@pytest.mark.parametrize(
    "content",
    [
        gguf(version=1)[:100],
        gguf(kind=999)[:-1],
        b"GGUF",
        b"GGUF" + struct.pack("<IQQQ", 3, 1, 1, 2**60),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + string(b"key") + struct.pack("<IIQ", 9, 9, 1),
        b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + string(b"w") + struct.pack("<I", 2**31),
    ],
    ids=["version", "type of tensor", "no header", "long name", "nested array", "dimensions"],
)
def test_form_that_is_not_known_is_no_problem(content: bytes, tmp_path: Path) -> None:
    assert problem_of(content, tmp_path) is None


@given(st.binary(max_size=200))
def test_header_of_any_bytes_ends_the_check(rest: bytes) -> None:
    read, write = os.memfd_create("header"), b"GGUF\x03\0\0\0" + rest
    try:
        os.write(read, write)
        gguf_problem(read, len(write))
    finally:
        os.close(read)
