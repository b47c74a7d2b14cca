"""The lock of a destination: one process at a time downloads into a folder; others wait and read its progress.

It is a lock of the kernel (flock), which is released when its process ends, also if it is killed. Some file systems have no
such locks (Lustre and NFS, depending on how they are mounted). There, each process writes partial files of its own, so that
processes which download the same model at once repeat the work and do not mix their bytes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from phasebus.initializer.downloads.errors import DownloadError
from phasebus.initializer.downloads.paths import ANOTHER_FOLDER, STATE
from phasebus.initializer.downloads.progress import INTERVAL
from phasebus.telemetry.files import open_regular, read_regular, replace_regular

_LOCK = "lock"
_STATUS = "status.json"
_MAX_STATUS = 4096
_READ_ONLY = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_PRIVATE = "unlocked-"
_ABANDONED_SECONDS = 86_400.0
"""Time without a write after which a private folder belongs to a process that was killed, in seconds."""

_WITHOUT_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP})

logger = logging.getLogger("phasebus.downloads")


@asynccontextmanager
async def exclusive_access(
    folder: Path, on_wait: Callable[[int, int | None], Awaitable[None]]
) -> AsyncIterator[Path | None]:
    """Hold the lock of `folder`; yield the folder for partial files, or None if `folder` is read-only and needs no lock.

    Args:
        folder: The destination; created if it does not exist.
        on_wait: Called repeatedly while another process holds the lock, with its bytes done and its total.

    Raises:
        DownloadError: The folder cannot be created or locked.
    """
    from filelock import FileLock, Timeout

    state = folder / STATE
    lock = private = None
    try:
        state.mkdir(parents=True, exist_ok=True)
        if state.is_symlink():
            raise DownloadError(f"{state} is a symbolic link; remove it")
        # opened first, because filelock follows a link and empties its target
        if _has_locks(open_regular(state / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)):
            lock = FileLock(state / _LOCK, mode=0o666, thread_local=False)
        else:
            logger.warning(
                "the file system of %s has no locks; processes that download into it repeat the work", folder
            )
            _remove_abandoned(state)
            private = Path(tempfile.mkdtemp(prefix=_PRIVATE, dir=state))
        while lock is not None:
            try:
                lock.acquire(timeout=0)
                break
            except Timeout:
                await on_wait(*_read_status(state))
                await anyio.sleep(INTERVAL)
    except OSError as error:
        if error.errno not in _READ_ONLY or not await anyio.Path(folder).is_dir():
            raise DownloadError(f"{folder} cannot be written: {error.strerror or error}; {ANOTHER_FOLDER}") from error
        lock = None
    try:
        yield private if lock is None else state
    finally:
        if private is not None:
            shutil.rmtree(private, ignore_errors=True)
        if lock is not None:
            with contextlib.suppress(OSError):
                (state / _STATUS).unlink(missing_ok=True)
            lock.release()


def _has_locks(descriptor: int) -> bool:
    """Close an open file, and return whether its file system has locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _WITHOUT_LOCKS
    finally:
        os.close(descriptor)
    return True


def _remove_abandoned(state: Path) -> None:
    for folder in state.glob(f"{_PRIVATE}*"):
        with contextlib.suppress(OSError):
            written = max(each.stat().st_mtime for each in (folder, *folder.iterdir()))
            if time.time() - written > _ABANDONED_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


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
