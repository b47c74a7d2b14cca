"""The record of verified files, so that a large file is not read again at every start.

The record has one line of JSON per file and boot of the machine. An incomplete line, or the line of a file that has changed,
is ignored. From a line of an earlier boot only the digest is used: files are not synced to the disk before they get their
names, because on a slow disk a sync takes longer than the download. After a reboot, each file is therefore read and compared
once. If the source lists no digest, it is compared with a checksum of our own.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from phasebus.initializer.downloads.checks import Digest
from phasebus.initializer.downloads.paths import STATE, boot_id, spare_record
from phasebus.initializer.downloads.protocol import RemoteFile
from phasebus.telemetry.files import open_regular, read_regular

_MAX_BYTES = 256 * 2**20


class Record:
    """The verified files of one destination. `add` is called from any thread.

    Args:
        folder: The destination. If it is read-only, the record is kept in phasebus's cache.
    """

    def __init__(self, folder: Path) -> None:
        self._paths = (folder / STATE / "record.jsonl", spare_record(folder))
        self._boot = boot_id()
        self._current: dict[str, dict[str, Any]] = {}
        self._latest: dict[str, dict[str, Any]] = {}
        for path in self._paths:
            with contextlib.suppress(OSError, UnicodeDecodeError):
                self._read(read_regular(path, _MAX_BYTES).decode())

    def is_verified(self, file: RemoteFile, status: os.stat_result) -> bool:
        """Return whether the file with this `status` was verified and still matches the listing."""
        entry = self._current.get(file.name)
        if entry is None or self._matching_digest(file, entry) is None:
            return False
        return bool(entry["size"] == status.st_size and entry["mtime_ns"] == status.st_mtime_ns)

    def is_other(self, file: RemoteFile, status: os.stat_result) -> bool:
        """Return whether the file with this `status` was verified, perhaps before a reboot, as another one than the listed."""
        entry = self._latest.get(file.name)
        if entry is None or file.digest is None or entry["digest"][0] != file.digest.algorithm:
            return False
        is_same_file = entry["size"] == status.st_size and entry["mtime_ns"] == status.st_mtime_ns
        return bool(is_same_file and entry["digest"][1] != file.digest.value)

    def expected_digest(self, file: RemoteFile) -> Digest | None:
        """Return the digest that a file under its final name must have; None if it is unknown."""
        if file.digest is not None:
            return file.digest
        entry = self._latest.get(file.name)
        return None if entry is None else self._matching_digest(file, entry)

    def add(self, file: RemoteFile, status: os.stat_result, digest: Digest) -> None:
        """Record that the file with this `status` was verified and has this `digest`."""
        entry = {
            "name": file.name,
            "size": status.st_size,
            "mtime_ns": status.st_mtime_ns,
            "digest": [digest.algorithm, digest.value],
            "validator": file.validator,
            "boot": self._boot,
        }
        self._keep(entry)
        line = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
        if not _append(self._paths[0], line):
            with contextlib.suppress(OSError):
                self._paths[1].parent.mkdir(parents=True, exist_ok=True)
            _append(self._paths[1], line)  # if this fails too, the file is read again at the next start

    def _read(self, text: str) -> None:
        for line in text.splitlines():
            with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
                self._keep(json.loads(line))

    def _keep(self, entry: dict[str, Any]) -> None:
        Digest(*entry["digest"])
        self._latest[entry["name"]] = entry
        if entry["boot"] == self._boot:
            self._current[entry["name"]] = entry

    @staticmethod
    def _matching_digest(file: RemoteFile, entry: dict[str, Any]) -> Digest | None:
        """Return the digest of an entry if the entry matches the listed file; else None."""
        digest = Digest(*entry["digest"])
        if file.digest is not None:
            return digest if digest == file.digest else None
        return digest if file.validator is not None and entry["validator"] == file.validator else None


def _append(path: Path, line: bytes) -> bool:
    try:
        descriptor = open_regular(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    except OSError:
        return False
    try:
        return os.write(descriptor, line) == len(line)
    except OSError:
        return False
    finally:
        os.close(descriptor)
