"""Calling a blocking function in a thread while a coroutine runs."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

import anyio
import anyio.lowlevel
import anyio.to_thread

T = TypeVar("T")


async def call_beside(function: Callable[[], T], beside: Callable[[], Coroutine[Any, Any, object]]) -> T:
    """Call `function` in a thread and return its result; run the coroutine function `beside` meanwhile.

    A cancellation cancels `beside`, which may then signal `function` to end. `function` is awaited in any case.

    Raises:
        Exception: The exception of `function`.
    """
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(beside)
        value, error = await anyio.to_thread.run_sync(_outcome_of, function)
        tasks.cancel_scope.cancel()
    await anyio.lowlevel.checkpoint()  # a cancellation has precedence over an error that it caused
    if error is not None:
        raise error
    return cast("T", value)


def _outcome_of(function: Callable[[], T]) -> tuple[T | None, Exception | None]:
    """Return the result or the exception of `function`. Raised in the task group, the exception would be wrapped."""
    try:
        return function(), None
    except Exception as error:  # noqa: BLE001  # raised again outside the task group
        return None, error
