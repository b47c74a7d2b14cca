"""A file in the making: kept under another name until it is whole, and taken up again where a killed process left it.

Beside it lies a note of what it is a part of. Bytes are only added to it if that is unchanged; without a note, or with
another one, it is begun anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from phasebus.initializer.downloads.checks import Digest, Hasher, hasher
from phasebus.initializer.downloads.paths import boot
from phasebus.initializer.downloads.sources.protocol import BLOCK, RemoteFile

_LONGEST_GATHERING = 1.0
"""How long bytes may wait to be written, in seconds."""

_MOST_BLOCKS = 64

_WITHOUT_NOTE = BLOCK
"""The largest size, in bytes, of a file that is not taken up again: it is written at once or not at all."""


class Partial:
    """The file in the making for one file of a listing. Used by one thread at a time.

    Args:
        folder: Where such files are kept; on the file system of the destination.
        file: What it is to become.

    Attributes:
        path: Where it is.
        size: How many bytes of it there are.
        validator: What to send along when asking for the rest; None without.
    """

    def __init__(self, folder: Path, file: RemoteFile) -> None:
        name = hashlib.sha256(file.name.encode()).hexdigest()[:24]
        self.path = folder / f"{name}.part"
        self._note = folder / f"{name}.json"
        self._file = file
        self._descriptor: int | None = None
        self.size = 0
        self.validator: str | None = None
        self._hasher: Hasher = self._new_hasher()
        self._buffer = memoryview(b"")
        self._gathered: list[memoryview] = []
        self._written = 0
        self._flushed = 0.0

    @property
    def descriptor(self) -> int:
        """The open file."""
        assert self._descriptor is not None, "it has to be opened first"  # noqa: S101  # a fault of ours
        return self._descriptor

    @property
    def is_open(self) -> bool:
        """Whether it was opened, and not closed since."""
        return self._descriptor is not None

    @property
    def room(self) -> memoryview:
        """Where bytes may be put that are then added; of what was put there before, all is added."""
        return self._buffer[self.size - self._written :]

    def kept(self) -> int:
        """Return how many bytes of it an earlier process left that can be used."""
        if not self._noted:
            return 0
        try:
            note = json.loads(self._note.read_bytes())
            size = self.path.stat(follow_symlinks=False).st_size
        except (OSError, ValueError):
            return 0
        usable = isinstance(note, dict) and self._about(note.get("validator")) == note
        return size if usable and (self._file.size is None or size <= self._file.size) else 0

    def open(self) -> None:
        """Open it, with the bytes an earlier process left, if they are part of the same file."""
        kept = self.kept()
        anew = 0 if kept else os.O_TRUNC
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | anew, 0o666)
        self._buffer = memoryview(bytearray(BLOCK if self._noted else (self._file.size or 0) + 1))
        if kept:
            self.validator = json.loads(self._note.read_bytes())["validator"]
            self.size = self._written = kept

    def take_in(self, check: Callable[[], None]) -> None:
        """Have the digest cover the bytes that are kept; `check` is called now and then, and may raise."""
        if not self.size:
            return
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        while count := os.readv(self.descriptor, [self._buffer]):
            check()
            self._hasher.update(self._buffer[:count])
        os.lseek(self.descriptor, self.size, os.SEEK_SET)

    def restart(self, validator: str | None) -> None:
        """Begin anew, with a file for the rest of which one asks with `validator`."""
        if self.size:
            self._empty()
        self.validator = validator
        if not self._noted:
            return
        temporary = self._note.with_suffix(".new")
        temporary.write_text(json.dumps(self._about(validator)), encoding="utf-8")
        temporary.replace(self._note)

    def add(self, block: memoryview) -> None:
        """Add some bytes at the end. They are gathered, and written now and then; `flush` writes what is left."""
        self._hasher.update(block)
        self._gathered.append(block)
        self.size += len(block)
        if self.size - self._written >= BLOCK or time.monotonic() - self._flushed > _LONGEST_GATHERING:
            self.flush()

    def flush(self) -> None:
        """Write what was added and not yet written."""
        blocks, self._gathered = self._gathered, []
        self._flushed = time.monotonic()
        while blocks:
            written = os.writev(self.descriptor, blocks[:_MOST_BLOCKS])
            self._written += written
            while blocks and written >= len(blocks[0]):
                written -= len(blocks.pop(0))
            if written:
                blocks[0] = blocks[0][written:]

    def digest(self) -> Digest:
        """Return what the bytes hash to; by the algorithm of the source's own digest, if it names one."""
        named = self._file.digest
        return Digest("crc32" if named is None else named.algorithm, self._hasher.hexdigest())

    def discard(self) -> None:
        """Forget the bytes: they are not those of the file."""
        if self.is_open:
            self._empty()
        self._forget()

    def become(self, target: Path) -> None:
        """Give it its final name, whole as it is."""
        self.path.replace(target)
        self._forget()

    def close(self) -> None:
        """Close it; what is there stays. May be called twice."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor, self._buffer, self._gathered = None, memoryview(b""), []

    @property
    def _noted(self) -> bool:
        return self._file.size is None or self._file.size > _WITHOUT_NOTE

    def _forget(self) -> None:
        if self._noted:
            self._note.unlink(missing_ok=True)

    def _empty(self) -> None:
        os.ftruncate(self.descriptor, 0)
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        self.size, self._written, self._gathered = 0, 0, []
        self.validator, self._hasher = None, self._new_hasher()

    def _new_hasher(self) -> Hasher:
        digest, size = self._file.digest, self._file.size
        return hasher("crc32" if digest is None else digest.algorithm, size or 0)

    def _about(self, validator: str | None) -> dict[str, Any]:
        digest = self._file.digest
        return {
            "name": self._file.name,
            "size": self._file.size,
            "digest": None if digest is None else digest.value,
            "listed": self._file.validator,
            "validator": validator,
            # what is written just before a loss of power may come back as zeros: only a digest would tell
            "boot": None if digest is not None else boot(),
        }
