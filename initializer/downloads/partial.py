"""A partial file: it has another name until it is complete, and a later process can continue it.

A note beside it describes the file that it is a part of. It is only continued if the note matches the listed file; without
a matching note it is restarted.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from phasebus.initializer.downloads.checks import Digest, Hasher, hasher
from phasebus.initializer.downloads.paths import boot_id
from phasebus.initializer.downloads.protocol import BLOCK, RemoteFile
from phasebus.telemetry.files import open_regular, read_regular, replace_regular

_MAX_DELAY = 1.0
"""Maximum time before received bytes are written, in seconds."""

_MAX_BLOCKS = 64
_MAX_NOTE = 64 * 2**10

WITHOUT_NOTE = BLOCK
"""Maximum size of a file that is never continued, in bytes: it is written in one block or not at all."""


class PartialFile:
    """The partial file of one file of a listing. Used by one thread at a time.

    Args:
        folder: The folder of partial files; on the file system of the destination.
        file: The file of the listing.
        without_note: See `WITHOUT_NOTE`.

    Attributes:
        path: Its path.
        size: The number of bytes it has.
        validator: The value to send with the request for the remaining bytes; None without one.
    """

    def __init__(self, folder: Path, file: RemoteFile, without_note: int = WITHOUT_NOTE) -> None:
        name = hashlib.sha256(file.name.encode()).hexdigest()[:24]
        self.path = folder / f"{name}.part"
        self._note = folder / f"{name}.json"
        self._file = file
        self._noted = file.size is None or file.size > without_note
        self._descriptor: int | None = None
        self.size = 0
        self.validator: str | None = None
        self._hasher: Hasher = self._new_hasher()
        self._buffer = memoryview(b"")
        self._pending: list[memoryview] = []
        self._written = 0
        self._flushed = 0.0

    @property
    def descriptor(self) -> int:
        """The descriptor of the open file."""
        assert self._descriptor is not None, "it has to be opened first"  # noqa: S101  # an error of the caller
        return self._descriptor

    @property
    def is_open(self) -> bool:
        """Whether it is open."""
        return self._descriptor is not None

    @property
    def room(self) -> memoryview:
        """Memory that the next bytes can be received into before `add`."""
        return self._buffer[self.size - self._written :]

    def resumable_bytes(self) -> int:
        """Return the number of usable bytes that an earlier process left."""
        if not self._noted:
            return 0
        try:
            note = json.loads(read_regular(self._note, _MAX_NOTE))
            status = self.path.stat(follow_symlinks=False)
        except (OSError, ValueError, RecursionError):
            return 0
        if not stat.S_ISREG(status.st_mode):
            return 0
        size = status.st_size
        usable = isinstance(note, dict) and self._description(note.get("validator")) == note
        return size if usable and (self._file.size is None or size <= self._file.size) else 0

    def open(self) -> None:
        """Open it; keep the bytes that an earlier process left if they belong to the same file."""
        kept = self.resumable_bytes()
        truncate = 0 if kept else os.O_TRUNC
        self._descriptor = open_regular(self.path, os.O_RDWR | os.O_CREAT | truncate, 0o666)
        self._buffer = memoryview(bytearray(BLOCK if self._noted else (self._file.size or 0) + 1))
        if kept:
            self.validator = json.loads(read_regular(self._note, _MAX_NOTE))["validator"]
            self.size = self._written = kept

    def hash_existing(self, check: Callable[[], None]) -> None:
        """Add the bytes of an earlier process to the digest. `check` is called between blocks and may raise."""
        if not self.size:
            return
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        while count := os.readv(self.descriptor, [self._buffer]):
            check()
            self._hasher.update(self._buffer[:count])
        os.lseek(self.descriptor, self.size, os.SEEK_SET)

    def restart(self, validator: str | None) -> None:
        """Drop all bytes. `validator` is the value for requests of the new content."""
        if self.size:
            self._empty()
        self.validator = validator
        if not self._noted:
            return
        replace_regular(self._note, json.dumps(self._description(validator)).encode())

    def add(self, block: memoryview) -> None:
        """Append some bytes. They are written in larger blocks; `flush` writes the remaining ones."""
        self._hasher.update(block)
        self._pending.append(block)
        self.size += len(block)
        if self.size - self._written >= BLOCK or time.monotonic() - self._flushed > _MAX_DELAY:
            self.flush()

    def flush(self) -> None:
        """Write the bytes that were added and have not been written."""
        blocks, self._pending = self._pending, []
        self._flushed = time.monotonic()
        while blocks:
            written = os.writev(self.descriptor, blocks[:_MAX_BLOCKS])
            self._written += written
            while blocks and written >= len(blocks[0]):
                written -= len(blocks.pop(0))
            if written:
                blocks[0] = blocks[0][written:]

    def digest(self) -> Digest:
        """Return the digest of the bytes, with the algorithm of the listed digest if there is one."""
        named = self._file.digest
        return Digest("crc32" if named is None else named.algorithm, self._hasher.hexdigest())

    def discard(self) -> None:
        """Drop the bytes and the note, because they do not match the file."""
        if self.is_open:
            self._empty()
        self._remove_note()

    def move_to(self, target: Path) -> None:
        """Give the complete file its final name."""
        self.path.replace(target)
        self._remove_note()

    def remove(self) -> None:
        """Delete what an earlier process left, because the file is present without it."""
        self.path.unlink(missing_ok=True)
        self._remove_note()

    def close(self) -> None:
        """Close it and keep its bytes. Possibly called twice."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor, self._buffer, self._pending = None, memoryview(b""), []

    def _remove_note(self) -> None:
        if self._noted:
            self._note.unlink(missing_ok=True)

    def _empty(self) -> None:
        os.ftruncate(self.descriptor, 0)
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        self.size, self._written, self._pending = 0, 0, []
        self.validator, self._hasher = None, self._new_hasher()

    def _new_hasher(self) -> Hasher:
        digest, size = self._file.digest, self._file.size
        return hasher("crc32" if digest is None else digest.algorithm, size or 0)

    def _description(self, validator: str | None) -> dict[str, Any]:
        digest = self._file.digest
        return {
            "name": self._file.name,
            "size": self._file.size,
            "digest": None if digest is None else digest.value,
            "listed": self._file.validator,
            "validator": validator,
            # bytes written just before a loss of power may read back as zeros, which only a digest detects
            "boot": None if digest is not None else boot_id(),
        }
