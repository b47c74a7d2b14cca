"""What was checked, and how it looked then, so that a large file is not read again at every start.

One line of JSON for a file and a boot of the machine. A line that is torn, or of a file that has changed since, counts
for nothing. Nor does one of an earlier boot: files are not forced onto the disk before they get their names, because on
a slow disk that takes longer than the download, so after a loss of power each is read and compared once more. Then, a
checksum of our own stands in for files whose source names no digest.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from phasebus.initializer.downloads.checks import Digest
from phasebus.initializer.downloads.paths import boot
from phasebus.initializer.downloads.sources.protocol import RemoteFile


class Record:
    """The checked files of one destination. `add` may be called from any thread.

    Args:
        path: Where it is kept.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._boot = boot()
        self._here: dict[str, dict[str, Any]] = {}
        self._latest: dict[str, dict[str, Any]] = {}
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            return
        for line in lines:
            try:
                self._keep(json.loads(line))
            except (ValueError, TypeError, KeyError):
                continue

    def knows(self, file: RemoteFile, status: os.stat_result) -> bool:
        """Return whether the file with this `status` was checked to be what the source lists now."""
        entry = self._here.get(file.name)
        if entry is None or self._expected(file, entry) is None:
            return False
        return bool(entry["size"] == status.st_size and entry["mtime_ns"] == status.st_mtime_ns)

    def digest_of(self, file: RemoteFile) -> Digest | None:
        """Return what a file under its final name has to hash to; None if nobody knows."""
        if file.digest is not None:
            return file.digest
        entry = self._latest.get(file.name)
        return None if entry is None else self._expected(file, entry)

    def add(self, file: RemoteFile, status: os.stat_result, digest: Digest) -> None:
        """Note that the file with this `status` was checked, and has this `digest`."""
        entry = {
            "name": file.name,
            "size": status.st_size,
            "mtime_ns": status.st_mtime_ns,
            "digest": [digest.algorithm, digest.value],
            "validator": file.validator,
            "boot": self._boot,
        }
        line = json.dumps(entry, separators=(",", ":")) + "\n"
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)
        self._keep(entry)

    def _keep(self, entry: dict[str, Any]) -> None:
        self._latest[entry["name"]] = entry
        if entry["boot"] == self._boot:
            self._here[entry["name"]] = entry

    @staticmethod
    def _expected(file: RemoteFile, entry: dict[str, Any]) -> Digest | None:
        """Return the digest of an entry, if it is of the very file that is listed now."""
        digest = Digest(*entry["digest"])
        if file.digest is not None:
            return digest if digest == file.digest else None
        return digest if file.validator is not None and entry["validator"] == file.validator else None
