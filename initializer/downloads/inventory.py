"""The inventory of a complete download, for checking later without a request to the source that no file is missing."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path

from phasebus.initializer.downloads.names import is_remote_name
from phasebus.initializer.downloads.paths import STATE
from phasebus.initializer.downloads.protocol import RemoteFile
from phasebus.telemetry.files import read_regular, replace_regular

_NAME = "inventory.json"
_MAX_BYTES = 64 * 2**20


def write_inventory(folder: Path, files: Iterable[RemoteFile], revision: str | None) -> None:
    """Write the files and the version of a complete download. Does nothing if they are unchanged or cannot be written."""
    content = json.dumps({"revision": revision, "files": {file.name: file.size for file in files}}, sort_keys=True)
    path = folder / STATE / _NAME
    with contextlib.suppress(OSError):
        if read_regular(path, _MAX_BYTES) == content.encode():
            return
    with contextlib.suppress(OSError):
        replace_regular(path, content.encode())


def missing_of_inventory(folder: Path, revision: str | None = None) -> list[str] | None:
    """Return the files of an earlier complete download that are missing or have another size.

    Args:
        folder: The destination.
        revision: The version; None for any.

    Returns:
        The names; None if no complete download of that version is recorded.
    """
    try:
        noted = json.loads(read_regular(folder / STATE / _NAME, _MAX_BYTES))
        if revision not in {None, noted["revision"]}:
            return None
        return sorted(name for name, size in noted["files"].items() if not _is_there(folder, name, size))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _is_there(folder: Path, name: str, size: int | None) -> bool:
    try:
        status = (folder / name).stat() if is_remote_name(name) else None
    except OSError:
        return False
    return status is not None and size in {None, status.st_size}
