"""Calling what blocks, in a thread, with something beside it that must not outlast it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

import anyio
import anyio.lowlevel
import anyio.to_thread

T = TypeVar("T")


async def call_beside(function: Callable[[], T], beside: Callable[[], Coroutine[Any, Any, object]]) -> T:
    """Call `function` in a thread, and return what it returns; run `beside` meanwhile.

    When this is cancelled, so is `beside`, which may tell `function` of it; `function` is then waited for.

    Raises:
        Exception: What `function` raised.
    """
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(beside)
        value, error = await anyio.to_thread.run_sync(_tried, function)
        tasks.cancel_scope.cancel()
    await anyio.lowlevel.checkpoint()  # a cancellation comes before what it has made of the call
    if error is not None:
        raise error
    return cast("T", value)


def _tried(function: Callable[[], T]) -> tuple[T | None, Exception | None]:
    """Return what `function` returns or raises: raised in a task group, it would be wrapped."""
    try:
        return function(), None
    except Exception as error:  # noqa: BLE001  # raised again outside the task group
        return None, error
