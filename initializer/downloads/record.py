"""What was checked, and how it looked then, so that a large file is not read again at every start.

One line of JSON a file. A line that is torn, or of a file that has changed since, counts for nothing.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from phasebus.initializer.downloads.sources.protocol import RemoteFile


class Record:
    """The checked files of one destination. `add` may be called from any thread.

    Args:
        path: Where it is kept.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: dict[str, dict[str, Any]] = {}
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            return
        for line in lines:
            try:
                entry = json.loads(line)
                self._lines[entry["name"]] = entry
            except (ValueError, TypeError, KeyError):
                continue

    def knows(self, file: RemoteFile, status: os.stat_result) -> bool:
        """Return whether the file with this `status` was checked to be what the source lists now."""
        told = file.digest is not None or file.validator is not None
        return told and self._lines.get(file.name) == _entry(file, status)

    def add(self, file: RemoteFile, status: os.stat_result) -> None:
        """Note that the file with this `status` was checked."""
        entry = _entry(file, status)
        if self._lines.get(file.name) == entry:
            return
        line = json.dumps(entry, separators=(",", ":")) + "\n"
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)
        self._lines[file.name] = entry


def _entry(file: RemoteFile, status: os.stat_result) -> dict[str, Any]:
    return {
        "name": file.name,
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "digest": None if file.digest is None else file.digest.value,
        "validator": file.validator if file.digest is None else None,
    }
