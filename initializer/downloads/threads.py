"""Running blocking functions in threads that a cancellation can abandon, and running tasks in parallel."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Generic, TypeVar

import anyio
import anyio.from_thread
import anyio.lowlevel
from anyio import CapacityLimiter

from phasebus.initializer.downloads.errors import DownloadError
from phasebus.telemetry.redaction import redact

T = TypeVar("T")

STOP_SECONDS = 2.0
"""Maximum time to wait for a cancelled call after its `stop`, in seconds."""


class _Call(Generic[T]):
    """A function that runs in a daemon thread of its own: the end of the process does not wait for it."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._loop = anyio.lowlevel.current_token()
        self._value: T
        self._error: Exception | None = None
        self.done = anyio.Event()
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(self._run,), name="phasebus download", daemon=True).start()

    def _run(self) -> None:
        try:
            self._value = self._work()
        except Exception as error:  # noqa: BLE001  # raised again by `result`
            self._error = error
        except BaseException as error:  # noqa: BLE001  # a panic of a native library, or an exit
            self._error = DownloadError(f"a library failed ({type(error).__name__}: {redact(str(error))})")
        try:
            anyio.from_thread.run_sync(self.done.set, token=self._loop)
        except RuntimeError:
            return  # the event loop has ended

    def result(self) -> T:
        """Return the function's result, or raise its error."""
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # avoids a reference cycle of error, traceback and frame
        return self._value


async def run_in_thread(work: Callable[[], T], limiter: CapacityLimiter, stop: Callable[[], None]) -> T:
    """Call `work` in a thread and return its result.

    Args:
        work: The function to run.
        limiter: Limits the number of threads.
        stop: Called when this task is cancelled; it must make `work` end soon. A thread that takes longer than
            `STOP_SECONDS` is abandoned.
    """
    async with limiter:
        call = _Call(work)
        try:
            await call.done.wait()
        except anyio.get_cancelled_exc_class():
            stop()
            with anyio.move_on_after(STOP_SECONDS, shield=True):
                await call.done.wait()
            raise
        return call.result()


async def run_all(
    workers: Iterable[Callable[[], Coroutine[Any, Any, None]]],
    meanwhile: Callable[[], Coroutine[Any, Any, None]] | None = None,
) -> None:
    """Run `workers` in parallel. The first error cancels the others and is raised without an ExceptionGroup.

    Args:
        workers: The tasks.
        meanwhile: A further task, which is cancelled when the workers have ended.
    """
    failure: Exception | None = None

    async def guarded(worker: Callable[[], Coroutine[Any, Any, None]]) -> None:
        nonlocal failure
        try:
            await worker()
        except Exception as error:  # noqa: BLE001  # raised below, outside the task group
            failure = failure or error
            tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as around:
        if meanwhile is not None:
            around.start_soon(meanwhile)
        async with anyio.create_task_group() as tasks:
            for worker in workers:
                tasks.start_soon(guarded, worker)
        around.cancel_scope.cancel()
    if failure is not None:
        raise failure
