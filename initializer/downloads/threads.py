"""Blocking work in worker threads that ends when it is cancelled."""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from anyio import CapacityLimiter

T = TypeVar("T")

_LONGEST_ENDING = 2.0
"""How long a thread that was told to stop is waited for, in seconds; a client that blocks may take longer."""


async def in_thread(work: Callable[[], T], limiter: CapacityLimiter, stop: Callable[[], None] | None = None) -> T:
    """Return what `work` returns, run in a worker thread.

    Args:
        work: What to run.
        limiter: How many threads there may be.
        stop: Called when this is cancelled, so that `work` ends soon; it is waited for, but not for long.
    """
    if stop is None:
        return await anyio.to_thread.run_sync(work, limiter=limiter)
    running = threading.Event()

    def observed() -> T:
        running.set()
        try:
            return work()
        finally:
            running.clear()

    try:
        return await anyio.to_thread.run_sync(observed, abandon_on_cancel=True, limiter=limiter)
    except anyio.get_cancelled_exc_class():
        stop()
        with anyio.move_on_after(_LONGEST_ENDING, shield=True):
            while running.is_set():  # noqa: ASYNC110  # a thread that was abandoned has no other way to tell
                await anyio.sleep(0.005)
        raise


async def all_of(
    workers: Iterable[Callable[[], Coroutine[Any, Any, None]]],
    beside: Callable[[], Coroutine[Any, Any, None]] | None = None,
) -> None:
    """Run `workers` side by side; the first error cancels the others, and is raised as it is.

    Args:
        workers: What to run.
        beside: Runs meanwhile, and is cancelled when the others are done.
    """
    failure: Exception | None = None

    async def guarded(worker: Callable[[], Coroutine[Any, Any, None]]) -> None:
        nonlocal failure
        try:
            await worker()
        except Exception as error:  # noqa: BLE001  # raised below, without the group around it
            failure = failure or error
            tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as around:
        if beside is not None:
            around.start_soon(beside)
        async with anyio.create_task_group() as tasks:
            for worker in workers:
                tasks.start_soon(guarded, worker)
        around.cancel_scope.cancel()
    if failure is not None:
        raise failure
