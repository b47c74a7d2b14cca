"""Signals during a start: the first one shuts it down in order, a second one ends it at once."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from types import FrameType

import anyio
import psutil

from phasebus.initializer.cli.failures import Interrupted
from phasebus.initializer.cli.output import write_err
from phasebus.telemetry.descendants import descendants

_EXECUTOR_SECONDS = 1.0

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_REMINDER_SECONDS = 3.0
_COPY_SECONDS = 0.2
"""How soon after the first a signal is a copy of it: `timeout` and supervisors signal a process and then its group."""

Handler = Callable[[int, FrameType | None], None]


async def until_signalled(work: Callable[[], Awaitable[None]], waiting: Callable[[], str | None]) -> int | None:
    """Run `work`. A signal cancels it; a second one ends the process at once. Return the number of the first signal.

    A blocking callback cannot be cancelled, so the first signal raises `Interrupted` in it.

    Args:
        work: The work.
        waiting: Returns the name of the step that a cancelled `work` waits for; None without one.

    Raises:
        Interrupted: A signal has interrupted a callback.
        Exception: The error of `work`.
    """
    caught: int | None = None
    caught_at = 0.0
    failure: Exception | None = None
    signalled = anyio.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(_LimitedWaitExecutor())

    def catch(number: int, frame: FrameType | None) -> None:
        nonlocal caught, caught_at, failure
        if caught is not None:
            if number == caught and time.monotonic() - caught_at < _COPY_SECONDS:
                return
            _end_at_once(number)
        caught, caught_at = number, time.monotonic()
        loop.call_soon_threadsafe(signalled.set)
        _write(f"{signal.Signals(number).name}: stopping; a second signal ends it at once")
        if (callback := _called_by_the_bus(frame)) is not None:
            code = callback.f_code
            failure = Interrupted(number, f"{code.co_qualname} ({code.co_filename}:{callback.f_lineno})")
            raise failure

    async def watch() -> None:
        await signalled.wait()
        working.cancel()
        while True:
            await anyio.sleep(_REMINDER_SECONDS)
            if (what := waiting()) is not None:
                write_err(f"phasebus: still stopping, waiting for: {what}")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        with anyio.CancelScope() as working, handled_by(catch, _SIGNALS):
            try:
                await work()
            except Exception as error:  # noqa: BLE001  # raised again below: the task group would wrap it
                failure = failure or error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return caught


class _LimitedWaitExecutor(ThreadPoolExecutor):
    """Runs what callbacks pass to `asyncio.to_thread`. The end of the event loop waits for its threads, but not for ever.

    A cancelled call goes on in its thread, such as a request to a server that never answers.
    """

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # the base's
        """Shut down; with `wait`, wait at most `_EXECUTOR_SECONDS`."""
        shut_down = super().shutdown
        shut_down(wait=False, cancel_futures=cancel_futures)
        if wait:
            waiting = threading.Thread(target=shut_down, name="phasebus executor", daemon=True)
            waiting.start()
            waiting.join(_EXECUTOR_SECONDS)


@contextmanager
def handled_by(handler: Handler, numbers: Iterable[signal.Signals]) -> Iterator[None]:
    """Install `handler` for the signals `numbers` during the block; those that this process ignores stay ignored.

    `nohup` ignores SIGHUP, and a shell without job control SIGINT in its background jobs.
    """
    handled = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in handled}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _called_by_the_bus(frame: FrameType | None) -> FrameType | None:
    """Return the frame of the interrupted callback; None if no callback, or one of our own, was interrupted."""
    inner = None
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        if module.startswith("phasebus.bus."):
            return inner
        inner = None if module.startswith("phasebus.") else frame
        frame = frame.f_back
    return None


def _end_at_once(number: int) -> None:
    """End this process and all its child processes, without releasing resources."""
    _write(f"{signal.Signals(number).name} again: ended at once; `phasebus report` shows the progress of the start")
    try:
        for process in descendants(psutil.Process()):
            with suppress(psutil.Error):
                process.kill()
    finally:
        os._exit(128 + number)


def _write(message: str) -> None:
    """Write a message without buffering: the signal handler may have interrupted a print."""
    with suppress(OSError):
        os.write(2, f"phasebus: {message}\n".encode())
