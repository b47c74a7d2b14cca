"""What anyio does not offer: asked of asyncio and Trio themselves, through their public functions."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Generator
from contextvars import Context as ContextVars
from typing import Any


def spawn(function: Callable[[], Awaitable[None]], name: str) -> object:
    """Start a task that belongs to no task group; return it, to be kept as long as it runs.

    The one who starts it has to end it, and may do so in any task: a task group can only be left in the task that entered it,
    which is not what test frameworks and application lifespans do.
    """
    if _in_trio():
        return sys.modules["trio"].lowlevel.spawn_system_task(function, name=name)
    return asyncio.get_running_loop().create_task(function(), name=name)  # type: ignore[arg-type]


def cancellation_requested() -> bool:
    """Return whether a cancellation that is being handled here was asked for from outside.

    On asyncio any code may raise ``CancelledError``; on Trio only the run loop does.
    """
    return _in_trio() or task_was_cancelled()


def task_was_cancelled() -> bool:
    """Return whether this task of asyncio was cancelled. It is not cancelled a second time, as Trio's are: it has to end itself."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no event loop: the coroutine is driven by hand
        return False
    return task is not None and task.cancelling() > 0


def call_soon_here() -> Callable[[Callable[[], object]], object]:
    """Return a function that lets other threads call something in this event loop without waiting for it.

    It raises RuntimeError when the loop has ended. `anyio.from_thread.run_sync` waits, and for ever if the loop ends
    meanwhile.
    """
    if _in_trio():
        soon: Callable[[Callable[[], object]], object] = sys.modules["trio"].lowlevel.current_trio_token().run_sync_soon
        return soon
    return asyncio.get_running_loop().call_soon_threadsafe


class InContext:
    """Awaits a coroutine in this task, but with the context variables of another.

    Starting a task for it, the other way to do so, takes ten times as long.
    """

    __slots__ = ("_coroutine", "_variables")

    def __init__(self, coroutine: Any, variables: ContextVars) -> None:
        self._coroutine = coroutine
        self._variables = variables

    def __await__(self) -> Generator[Any, Any, Any]:
        run, iterator = self._variables.run, self._coroutine.__await__()
        step: Callable[..., Any] = iterator.__next__
        value: tuple[Any, ...] = ()
        while True:
            try:
                yielded = run(step, *value)
            except StopIteration as ended:
                return ended.value
            try:
                sent = yield yielded
            except BaseException as error:  # all of them, cancellations above all, are the coroutine's
                if not hasattr(iterator, "throw"):
                    raise
                step, value = iterator.throw, (error,)
            else:
                step, value = (iterator.__next__, ()) if sent is None else (iterator.send, (sent,))


def _in_trio() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        trio = sys.modules.get("trio")
        return trio is not None and bool(trio.lowlevel.in_trio_task())
    return False  # without having touched Trio, which another thread may be importing just now
