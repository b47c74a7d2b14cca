"""Whether the source of a module has bytecode that an import uses. Otherwise each process that imports it compiles it.

Source: `importlib._bootstrap_external.SourceLoader.get_code` of Python 3.11 to 3.13, and PEP 552.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Final, Literal

Bytecode = Literal["usable", "missing", "stale"]

_HEADER_BYTES: Final = 16
_HASHED, _CHECKED = 0b01, 0b10
_MASK: Final = 0xFFFFFFFF


def bytecode_of(source: str, cached: str) -> Bytecode:
    """Return whether the bytecode of a source is there, and whether it is of this source.

    Args:
        source: The path of the source.
        cached: The path of its bytecode (`importlib.util.cache_from_source`).
    """
    try:
        with open(cached, "rb", buffering=0) as file:  # noqa: PTH123  # a `Path` for each of thousands takes time
            header = file.read(_HEADER_BYTES)
    except OSError:
        return "missing"
    return "usable" if _is_of(source, header) else "stale"


def _is_of(source: str, header: bytes) -> bool:
    flags = int.from_bytes(header[4:8], "little")
    if len(header) < _HEADER_BYTES or header[:4] != importlib.util.MAGIC_NUMBER or flags & ~(_HASHED | _CHECKED):
        return False
    if not flags & _HASHED:
        try:
            found = os.stat(source)  # noqa: PTH116
        except OSError:
            return False
        numbers = (int(found.st_mtime) & _MASK, found.st_size & _MASK)
        return header[8:] == b"".join(each.to_bytes(4, "little") for each in numbers)
    return not flags & _CHECKED or header[8:] == importlib.util.source_hash(Path(source).read_bytes())
