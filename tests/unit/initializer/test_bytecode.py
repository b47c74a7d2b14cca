"""Whether bytecode is used by an import: the states that the import system of this Python distinguishes."""

from __future__ import annotations

import importlib.util
import os
import py_compile
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from pathlib import Path
from py_compile import PycInvalidationMode

import pytest

from phasebus.initializer.bytecode import bytecode_of

TIMED, CHECKED = PycInvalidationMode.TIMESTAMP, PycInvalidationMode.CHECKED_HASH
UNCHECKED = PycInvalidationMode.UNCHECKED_HASH


def nothing(_source: Path, _cached: Path) -> None:
    """Change neither."""


def touch(source: Path, _cached: Path) -> None:
    """Change the time of the source, as copying it into an image may."""
    os.utime(source, (1_000_000_000, 1_000_000_000))


def edit(source: Path, _cached: Path) -> None:
    """Change the source, and not its time."""
    before = source.stat()
    source.write_text("VALUE = 2222\n")
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))


def remove(_source: Path, cached: Path) -> None:
    """Remove the bytecode."""
    cached.unlink()


def truncate(_source: Path, cached: Path) -> None:
    """Leave a part of the header, as a full disk does."""
    cached.write_bytes(cached.read_bytes()[:10])


def age(_source: Path, cached: Path) -> None:
    """Make it the bytecode of another Python."""
    cached.write_bytes(b"\0\0\r\n" + cached.read_bytes()[4:])


@pytest.mark.parametrize(
    ("mode", "change", "state"),
    [
        (TIMED, nothing, "usable"),
        (TIMED, touch, "stale"),
        (TIMED, edit, "stale"),
        (TIMED, remove, "missing"),
        (TIMED, truncate, "stale"),
        (TIMED, age, "stale"),
        (CHECKED, touch, "usable"),
        (CHECKED, edit, "stale"),
        (UNCHECKED, touch, "usable"),
        (UNCHECKED, edit, "usable"),
    ],
)
def test_bytecode_is_usable_exactly_if_an_import_compiles_nothing(
    mode: PycInvalidationMode, change: Callable[[Path, Path], None], state: str, tmp_path: Path
) -> None:
    source = tmp_path / "module_with_bytecode.py"
    source.write_text("VALUE = 1\n")
    cached = Path(importlib.util.cache_from_source(str(source)))
    py_compile.compile(str(source), str(cached), doraise=True, invalidation_mode=mode)
    change(source, cached)
    assert bytecode_of(str(source), str(cached)) == state
    compiled: list[bytes] = []

    class Loader(SourceFileLoader):
        def source_to_code(self, data: bytes, path: str) -> object:  # type: ignore[override]
            compiled.append(data)
            return compile(data, path, "exec")

    Loader("module_with_bytecode", str(source)).get_code("module_with_bytecode")
    assert bool(compiled) == (state != "usable")
