"""The last lines that a process has printed."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from phasebus.telemetry.redaction import redact

_END_BYTES: Final = 64 * 1024
_SHOWN_CHARACTERS: Final = 16 * 1024
_LINES: Final = 10
_END_OF_LINE: Final = re.compile(r"[\r\n]")
_OWN_LINES: Final = ("phasebus: ", "  log: ")
"""What lines of phasebus begin with, where it writes to the same file."""

_NO_SPACE: Final = re.compile(r"No space left on device|\[Errno 28\]|Disk quota exceeded|\[Errno 122\]")


def last_lines(pid: int, logs: Iterable[Path] = (), *, ended: bool = False) -> tuple[str, ...]:
    """Return the last lines of a process's output, if it goes to a file; of a file of all processes, its own ones if marked.

    Args:
        pid: The id of the process; 0 if unknown.
        logs: Files that the output of all processes goes to.
        ended: Whether the process has ended; only lines that are marked are its own then.
    """
    for file in (*(() if ended else _output_files(pid)), *logs):
        lines = _end_of(file)
        own = [line for line in lines if pid and f"pid={pid})" in line]
        if found := (own or ([] if ended else lines))[-_LINES:]:
            return tuple(found)
    return ()


def no_space(lines: Sequence[str]) -> str | None:
    """Return the line that reports a full disk or quota; None without one."""
    return next((line.strip() for line in reversed(lines) if _NO_SPACE.search(line)), None)


def _output_files(pid: int) -> list[Path]:
    """Return the regular files that the standard output and error of a process go to."""
    found = []
    for descriptor in (2, 1) if pid else ():
        path = Path(f"/proc/{pid}/fd/{descriptor}")
        with contextlib.suppress(OSError):
            if stat.S_ISREG(path.stat().st_mode):
                found.append(path)
    return found


def _end_of(file: Path) -> list[str]:
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return []
        begin = max(0, os.fstat(descriptor).st_size - _END_BYTES)
        text = os.pread(descriptor, _END_BYTES, begin).decode(errors="replace")
    except OSError:
        return []
    finally:
        os.close(descriptor)
    if begin:  # the rest of a line may be the rest of a secret
        text = (*_END_OF_LINE.split(text, maxsplit=1), "")[1]
    lines = [line.rpartition("\r")[2] for line in text.split("\n")]
    shown = "\n".join(line for line in lines if line.strip() and not line.startswith(_OWN_LINES))
    return redact(shown)[-_SHOWN_CHARACTERS:].splitlines()  # as a whole: a private key has many lines
