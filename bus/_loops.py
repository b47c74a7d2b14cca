"""What anyio does not offer, or only at a price: asked of asyncio and Trio themselves."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any


class _AskTrio:
    def __getitem__(self, loop: object) -> object:
        return sys.modules["trio"].lowlevel.current_task()


class _AskAsyncio:
    def __getitem__(self, loop: object) -> object:
        if (task := asyncio.current_task()) is None:
            raise LookupError("no task is running")
        return task


RunningTasks = dict[Any, Any] | _AskTrio | _AskAsyncio


def running_tasks() -> tuple[RunningTasks, object]:
    """Return what tells which task is running in this event loop, and the key to ask it with.

    `anyio.get_current_task` takes many times as long.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        if not _in_trio():
            raise
        return _AskTrio(), None
    if sys.version_info < (3, 14):  # from then on, there is no such table
        return asyncio.tasks._current_tasks, loop  # type: ignore[attr-defined]  # noqa: SLF001
    return _AskAsyncio(), None


def call_soon_here() -> Callable[[Callable[[], object]], object]:
    """Return what lets other threads have something called in this event loop, without waiting for it.

    It raises RuntimeError when the loop has ended. `anyio.from_thread.run_sync` waits, and for ever if the loop ends
    meanwhile.
    """
    if _in_trio():
        soon: Callable[[Callable[[], object]], object] = sys.modules["trio"].lowlevel.current_trio_token().run_sync_soon
        return soon
    return asyncio.get_running_loop().call_soon_threadsafe


def _in_trio() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        trio = sys.modules.get("trio")
        return trio is not None and bool(trio.lowlevel.in_trio_task())
    return False  # without having touched Trio, which another thread may be importing just now
