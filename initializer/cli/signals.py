"""Signals while something starts: the first one ends it in order, a second one at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

import anyio
import click
import psutil

from phasebus.initializer.cli.failures import Interrupted

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SAY_SECONDS = 3.0

Handler = Callable[[int, FrameType | None], None]


async def until_signalled(work: Callable[[], Awaitable[None]], waiting: Callable[[], str | None]) -> int | None:
    """Do `work`; a signal cancels it, and a second one ends the process at once. Return the first one's number.

    A callback that blocks cannot be cancelled: the first signal raises `Interrupted` in it.

    Args:
        work: What is done.
        waiting: Tells in a few words what is being waited for, while the work does not end; None if nothing is.

    Raises:
        Interrupted: A signal has interrupted a callback.
        Exception: What the work raised.
    """
    caught: int | None = None
    failure: Exception | None = None
    signalled = anyio.Event()
    loop = asyncio.get_running_loop()

    def catch(number: int, frame: FrameType | None) -> None:
        nonlocal caught, failure
        if caught is not None:
            _end_at_once(number)
        caught = number
        loop.call_soon_threadsafe(signalled.set)
        _say(f"{signal.Signals(number).name}: stopping; once more ends it at once")
        if (callback := _called_by_the_bus(frame)) is not None:
            code = callback.f_code
            failure = Interrupted(number, f"{code.co_qualname} ({code.co_filename}:{callback.f_lineno})")
            raise failure

    async def watch() -> None:
        await signalled.wait()
        working.cancel()
        while True:
            await anyio.sleep(_SAY_SECONDS)
            if (what := waiting()) is not None:
                click.echo(f"phasebus: still stopping, waiting for: {what}", err=True)

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


@contextmanager
def handled_by(handler: Handler, numbers: Iterable[signal.Signals]) -> Iterator[None]:
    """Have the signals of these `numbers` handled by `handler`, and as they were before in the end."""
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _called_by_the_bus(frame: FrameType | None) -> FrameType | None:
    """Return the frame of the callback that a signal came in the middle of; None if it was none, or one of our own."""
    inner = None
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        if module.startswith("phasebus.bus."):
            return inner
        inner = None if module.startswith("phasebus.") else frame
        frame = frame.f_back
    return None


def _end_at_once(number: int) -> None:
    """End this process and every one that it has started, without giving anything back."""
    _say(f"{signal.Signals(number).name} again: ended at once; `phasebus report` tells how far it had come")
    for process in psutil.Process().children(recursive=True):
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    os._exit(128 + number)


def _say(message: str) -> None:
    """Say something in the middle of whatever a signal has interrupted, which may be a print."""
    os.write(2, f"phasebus: {message}\n".encode())
