"""Reading files into the page cache before they are loaded, in a small process with a low priority."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_PROGRAM: Final = """\
import os, sys
parent = int(sys.argv[1])
os.nice(10)
for name in sys.argv[2:]:
    try:
        with open(name, "rb", buffering=0) as file:
            buffer = bytearray(4 << 20)
            while file.readinto(buffer):
                if os.getppid() != parent:
                    sys.exit()
    except OSError:
        pass
"""

_SHARE_OF_FREE_MEMORY: Final = 0.5
_END_SECONDS: Final = 0.5


@contextmanager
def reading_ahead(files: Sequence[Path], free_bytes: int | None = None) -> Iterator[int]:
    """Read files into the page cache during this context; give the number of their bytes.

    Files that exceed half of the free memory are left out, as they would displace each other. If no process can be started,
    none is read.

    Args:
        files: The files, in the order in which they are loaded.
        free_bytes: The free memory; by default that of the machine, or of the control group.
    """
    fitting, size = _fitting(files, int((free_memory() if free_bytes is None else free_bytes) * _SHARE_OF_FREE_MEMORY))
    process = _start(fitting) if fitting else None
    try:
        yield size if process is not None else 0
    finally:
        if process is not None:
            process.kill()
            with suppress(subprocess.TimeoutExpired):  # it waits for a file system that does not answer
                process.wait(_END_SECONDS)


def free_memory() -> int:
    """Return how many bytes of memory are free for the page cache; 0 if that is not known."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return 0
    return min([available, *_left_in_groups()])


def _left_in_groups() -> Iterator[int]:
    """Yield what each limit of this process's control group leaves, in bytes. Source: cgroup v2, and v1 as mounted by default."""
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            yield max(0, int(Path(limit).read_text()) - int(Path(used).read_text()))
        except (OSError, ValueError):  # there is no such file, or its limit is "max"
            continue


def _fitting(files: Sequence[Path], most_bytes: int) -> tuple[list[str], int]:
    fitting, total = [], 0
    for path in files:
        try:
            size = path.stat().st_size
        except OSError:
            continue
        if total + size <= most_bytes:
            fitting.append(str(path))
            total += size
    return fitting, total


def _start(files: Sequence[str]) -> subprocess.Popen[bytes] | None:
    command = [sys.executable, "-I", "-S", "-c", _PROGRAM, str(os.getpid()), *files]
    nothing = subprocess.DEVNULL
    try:
        return subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing)  # noqa: S603  # our own program
    except OSError:
        return None
