"""Digests, and the header of safetensors files."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phasebus.initializer.downloads.checks import Algorithm, hasher, safetensors_problem
from tests.support.downloads import safetensors
from tests.support.hub_server import git_id


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        ("sha256", "3a6eb0790f39ac87c94f3856b2dd2c5d110e6811602261a9a923d3bb23adc8b7"),
        ("git-sha1", "6320cd248dd8aeaab759d5871f8781b5c0505172"),
        ("crc32", "adf3f363"),
    ],
)
def test_digest_is_the_same_in_pieces(algorithm: Algorithm, expected: str) -> None:
    """The digests are those that `sha256sum`, `git hash-object` and `gzip -l --verbose` print for the text ``data``."""
    seen = hasher(algorithm, 4)
    seen.update(b"d")
    seen.update(memoryview(b"ata"))
    assert seen.hexdigest() == expected


def problem_of(content: bytes, folder: Path) -> str | None:
    path = folder / "weights"
    path.write_bytes(content)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return safetensors_problem(descriptor, len(content))
    finally:
        os.close(descriptor)


def with_header(header: Any, tail: bytes = b"") -> bytes:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + tail


def test_file_of_the_safetensors_library_is_well_formed(tmp_path: Path) -> None:
    library, numpy = pytest.importorskip("safetensors.numpy"), pytest.importorskip("numpy")
    tensors = {"a": numpy.zeros((3, 5)), "b": numpy.ones(7, dtype="float16"), "empty": numpy.zeros(0)}
    library.save_file(tensors, tmp_path / "real", metadata={"format": "pt"})
    assert problem_of((tmp_path / "real").read_bytes(), tmp_path) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "at least 8 bytes"),
        (b"\xff" * 100, "header claims"),
        (with_header(b"not json"), "malformed"),
        (with_header([1, 2]), "malformed"),
        (with_header({"a": {}}), "malformed"),
        (with_header({"a": {"data_offsets": [4, 2]}}), "malformed"),
        (with_header({"a": {"data_offsets": [1, 2]}}, b"xx"), "first tensor begins at byte 1"),
        (with_header({"a": {"data_offsets": [0, 2]}, "b": {"data_offsets": [3, 4]}}, b"xxxx"), "begins at byte 3"),
        (with_header({"a": {"data_offsets": [0, 2]}}, b"x"), "describes 2 bytes of tensors, and 1 are there"),
    ],
)
def test_malformed_safetensors_header_is_described(content: bytes, message: str, tmp_path: Path) -> None:
    assert message in (problem_of(content, tmp_path) or "")


@given(cut=st.integers(0, 1_000), data=st.data())
def test_truncated_safetensors_file_is_detected(tmp_path_factory: pytest.TempPathFactory, cut: int, data: Any) -> None:
    whole = safetensors(1_000)
    assert problem_of(whole[: len(whole) - 1 - cut], tmp_path_factory.getbasetemp()) is not None


@given(st.binary(max_size=200), st.integers(0, 200))
def test_digest_does_not_depend_on_how_the_bytes_are_split(content: bytes, at: int) -> None:
    for algorithm, expected in (("sha256", hashlib.sha256(content).hexdigest()), ("git-sha1", git_id(content))):
        seen = hasher(algorithm, len(content))  # type: ignore[arg-type]
        seen.update(content[:at])
        seen.update(content[at:])
        assert seen.hexdigest() == expected
