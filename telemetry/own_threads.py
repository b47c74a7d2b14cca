"""The threads of this process that only observe a start. What they use is no sign that the start goes on."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple


class Usage(NamedTuple):
    """What threads have used: CPU time in seconds, bytes read and written, and bytes read."""

    cpu: float = 0.0
    moved: int = 0
    read: int = 0


class OwnThreads:
    """Adds up what the threads use that serve the page, print the state, sample processes or collect evidence."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[int] = set()
        self._ended = Usage()

    def used(self) -> Usage:
        """Return what they have used, with those that have ended."""
        with self._lock:
            return _sum(self._ended, *(_of_thread(each) for each in self._running))

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count the calling thread as one of them during the block."""
        native_id = threading.get_native_id()
        with self._lock:
            self._running.add(native_id)
        try:
            yield
        finally:
            with self._lock:
                self._running.discard(native_id)
                self._ended = _sum(self._ended, _of_thread(native_id))

    @contextmanager
    def counted_process(self) -> Iterator[None]:
        """Count what a process uses that the block runs and waits for: it counts as a child of this one."""
        before = _with_children()
        try:
            yield
        finally:
            after = _with_children()
            used = Usage(after.cpu - before.cpu, after.moved - before.moved, after.read - before.read)
            with self._lock:
                self._ended = _sum(self._ended, used)


OWN_THREADS: Final = OwnThreads()
"""Those of this process: each counts itself."""


def _sum(*parts: Usage) -> Usage:
    return Usage(*map(sum, zip(*parts, strict=True)))


def _with_children() -> Usage:
    """Return the CPU time of this process's ended children, and the bytes of it and them."""
    times = os.times()
    moved, read = _bytes_in("/proc/self/io")
    return Usage(times.children_user + times.children_system, moved, read)


def _of_thread(native_id: int) -> Usage:
    """Return what a thread of this process has used; nothing if that is not readable."""
    folder = f"/proc/self/task/{native_id}"
    try:
        with open(f"{folder}/stat", "rb") as file:  # noqa: PTH123
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return Usage()
    ticks = int(fields[11]) + int(fields[12])
    return Usage(ticks / os.sysconf("SC_CLK_TCK"), *_bytes_in(f"{folder}/io"))


def _bytes_in(file: str) -> tuple[int, int]:
    """Return the bytes moved, and those read, of a file of the kernel's; 0 if it is not readable."""
    try:
        with open(file, "rb") as counters:  # noqa: PTH123
            read, written, _, _, from_disk, to_disk = (int(line.split()[1]) for line in counters.readlines()[:6])
    except (OSError, ValueError):
        return 0, 0
    return read + written + from_disk + to_disk, read
