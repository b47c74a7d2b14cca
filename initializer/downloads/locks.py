"""One process at a time fetches into a folder; the others wait, and see how far it is.

The lock is the kernel's (flock): it goes with the process that holds it, however that dies.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from phasebus.initializer.downloads.errors import DownloadError
from phasebus.initializer.downloads.paths import STATE
from phasebus.initializer.downloads.progress import INTERVAL

_LOCK = "lock"
_STATUS = "status.json"


@asynccontextmanager
async def alone(folder: Path, waiting: Callable[[int, int | None], Awaitable[None]]) -> AsyncIterator[None]:
    """Be the only one to fetch into `folder`.

    Args:
        folder: The destination; it is created.
        waiting: Told again and again how many bytes the other has, of how many, while there is another.

    Raises:
        DownloadError: The folder cannot be written.
    """
    from filelock import FileLock, Timeout

    state = folder / STATE
    try:
        state.mkdir(parents=True, exist_ok=True)
        if state.is_symlink():
            raise DownloadError(f"{state} is a symbolic link; remove it")
        lock = FileLock(state / _LOCK, thread_local=False)
        while True:
            try:
                lock.acquire(timeout=0)
                break
            except Timeout:
                await waiting(*_read(state))
                await anyio.sleep(INTERVAL)
    except OSError as error:
        raise DownloadError(
            f"{folder} cannot be written: {error.strerror or error}; choose another destination"
        ) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            (state / _STATUS).unlink(missing_ok=True)
        lock.release()


def tell_others(folder: Path, done: int, total: int | None) -> None:
    """Leave for whoever waits how many bytes are there, of how many."""
    path = folder / STATE / _STATUS
    temporary = path.with_suffix(".new")
    with contextlib.suppress(OSError):  # the disk may be full, which the transfers will say
        temporary.write_text(json.dumps({"done": done, "total": total}), encoding="ascii")
        temporary.replace(path)


def _read(state: Path) -> tuple[int, int | None]:
    try:
        status = json.loads((state / _STATUS).read_bytes())
        return int(status["done"]), None if status["total"] is None else int(status["total"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0, None
