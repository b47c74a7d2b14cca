"""The lock of a destination: one process at a time downloads into a folder; others wait and read its progress.

It is a lock of the kernel (flock), which is released when its process ends, also if it is killed.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from phasebus.initializer.downloads.errors import DownloadError
from phasebus.initializer.downloads.paths import STATE
from phasebus.initializer.downloads.progress import INTERVAL
from phasebus.telemetry.files import open_regular, read_regular, replace_regular

_LOCK = "lock"
_STATUS = "status.json"
_MAX_STATUS = 4096
_READ_ONLY = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


@asynccontextmanager
async def exclusive_access(folder: Path, on_wait: Callable[[int, int | None], Awaitable[None]]) -> AsyncIterator[bool]:
    """Hold the lock of `folder`; yield whether it is held. A read-only folder is not locked, and needs no lock.

    Args:
        folder: The destination; created if it does not exist.
        on_wait: Called repeatedly while another process holds the lock, with its bytes done and its total.

    Raises:
        DownloadError: The folder cannot be created or locked.
    """
    from filelock import FileLock, Timeout

    state = folder / STATE
    lock = None
    try:
        state.mkdir(parents=True, exist_ok=True)
        if state.is_symlink():
            raise DownloadError(f"{state} is a symbolic link; remove it")
        os.close(
            open_regular(state / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        )  # filelock follows a link and empties its target
        lock = FileLock(state / _LOCK, mode=0o666, thread_local=False)
        while True:
            try:
                lock.acquire(timeout=0)
                break
            except Timeout:
                await on_wait(*_read_status(state))
                await anyio.sleep(INTERVAL)
    except OSError as error:
        if error.errno not in _READ_ONLY or not await anyio.Path(folder).is_dir():
            raise DownloadError(
                f"{folder} cannot be written: {error.strerror or error}; choose another destination"
            ) from error
        lock = None
    try:
        yield lock is not None
    finally:
        if lock is not None:
            with contextlib.suppress(OSError):
                (state / _STATUS).unlink(missing_ok=True)
            lock.release()


def write_status(folder: Path, done: int, total: int | None) -> None:
    """Write the progress for waiting processes: the bytes done, and the total."""
    with contextlib.suppress(OSError):  # the transfers report a full disk
        replace_regular(folder / STATE / _STATUS, json.dumps({"done": done, "total": total}).encode())


def _read_status(state: Path) -> tuple[int, int | None]:
    try:
        status = json.loads(read_regular(state / _STATUS, _MAX_STATUS))
        return int(status["done"]), None if status["total"] is None else int(status["total"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return 0, None
