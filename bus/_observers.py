"""Observers: subscribers that only watch, beside the publisher and behind a buffer of their own."""

from __future__ import annotations

import contextlib
import inspect
import logging
import threading
from collections.abc import Awaitable, Callable
from contextvars import Context as ContextVars
from contextvars import copy_context
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

import anyio
import anyio.from_thread
from anyio.abc import TaskGroup
from anyio.lowlevel import EventLoopToken

from phasebus.bus._buffers import Item, Overflow, TaskBuffer, ThreadBuffer
from phasebus.bus._forms import Form, Shape
from phasebus.bus._loops import call_soon_here
from phasebus.bus._selectors import Selector
from phasebus.bus._stats import SubscriberStats
from phasebus.bus._trail import event_of, passing_trail, trail
from phasebus.bus._view import ReadOnlyContext

logger = logging.getLogger("phasebus.bus")


@runtime_checkable
class Observer(Protocol):
    """An object that watches: the annotation of `observe`'s argument says which events it is given.

    A method ``close(self)``, if it has one, is called after its last event.
    """

    def observe(self, event: Any) -> Any:
        """Look at one event. It may be a coroutine function."""


def close_of(observer: Observer) -> Callable[[], Any] | None:
    """Return the method that `observer` wants called after its last event, if it has one."""
    close: Callable[[], Any] | None = getattr(observer, "close", None)
    return close


class Observation:
    """The handle of an observer; leaving it as a context manager ends the observing.

    Attributes:
        name: The name it is known by, unique on its bus.
        overflow: What happens to an event that finds the observer's buffer full.
        takes_context: Whether it is given the context, too.
        done: Set when it has seen its last event and is closed.
    """

    buffer: TaskBuffer | ThreadBuffer

    def __init__(
        self,
        leave: Callable[[Observation], None],
        look: Callable[..., Any],
        shape: Shape,
        close: Callable[[], Any] | None,
        *,
        name: str,
        selector: Selector,
        overflow: Overflow,
    ) -> None:
        self._leave = leave
        self._look = look
        self.takes_context = shape.form is Form.EVENT_AND_CONTEXT
        self._close = close
        self._calls = 0
        self._broken = False
        self.name = name
        self.selector = selector
        self.overflow = overflow
        self.done = anyio.Event()

    def start(self, tasks: TaskGroup, token: EventLoopToken) -> None:
        """Begin to look at what is in the buffer."""
        raise NotImplementedError

    def unsubscribe(self) -> None:
        """Watch no more. What is in the buffer is still looked at. May be called twice."""
        self._leave(self)

    def stats(self) -> SubscriberStats:
        """Return what it has done so far."""
        return SubscriberStats(
            name=self.name, role="observer", calls=self._calls, errors=int(self._broken), drops=self.buffer.drops
        )

    def _enter(self, item: Item) -> tuple[ContextVars, tuple[Any, ...]]:
        """Return the context variables to look at `item` with, and what to call the observer with."""
        top, context, variables = item
        variables.run(trail.set, passing_trail(top))  # what it publishes is nested, whatever the publisher does by now
        event = event_of(top)
        return variables, (event, ReadOnlyContext(context)) if self.takes_context else (event,)

    def _break(self, error: BaseException) -> None:
        """Switch the observer off, and say so: the program goes on without it."""
        self._broken = True
        logger.error(
            "observer %r failed and is switched off; the publisher goes on without it", self.name, exc_info=error
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.unsubscribe()


class ThreadObservation(Observation):
    """A synchronous observer, in a daemon thread of its own: it may block for as long as it likes."""

    def __init__(self, *args: Any, limit: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.buffer: ThreadBuffer = ThreadBuffer(limit)

    def start(self, tasks: TaskGroup, token: EventLoopToken) -> None:
        """Begin to look at what is in the buffer."""
        threading.Thread(
            target=self._run, args=(token, call_soon_here()), name=f"phasebus observer {self.name}", daemon=True
        ).start()

    def _run(self, token: EventLoopToken, soon: Callable[[Callable[[], object]], object]) -> None:
        while (item := self.buffer.take()) is not None:
            if not self._broken:
                self._calls += 1
                variables, arguments = self._enter(item)
                self._try(token, variables.run, self._look, *arguments)
        if self._close is not None:
            self._try(token, self._close)
        with contextlib.suppress(RuntimeError):  # the loop has ended without waiting for this thread
            soon(self.done.set)

    def _try(self, token: EventLoopToken, function: Callable[..., Any], *args: Any) -> None:
        try:
            value = function(*args)
            if inspect.isawaitable(value):  # it did not look asynchronous: the loop has to finish it
                anyio.from_thread.run(_finish, value, token=token)
        except BaseException as error:  # noqa: BLE001  # SystemExit, too, ends the observer and not the program
            self._break(error)


class TaskObservation(Observation):
    """An asynchronous observer, in a task of the bus."""

    def __init__(self, *args: Any, limit: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.buffer: TaskBuffer = TaskBuffer(limit)

    def start(self, tasks: TaskGroup, token: EventLoopToken) -> None:
        """Begin to look at what is in the buffer."""
        tasks.start_soon(self._run, name=f"phasebus observer {self.name}")

    async def _run(self) -> None:
        while (item := await self.buffer.take()) is not None:
            if not self._broken:
                self._calls += 1
                variables, arguments = self._enter(item)
                await self._try(variables, self._look, *arguments)
        if self._close is not None:
            await self._try(copy_context(), self._close)
        self.done.set()

    async def _try(self, variables: ContextVars, function: Callable[..., Any], *args: Any) -> None:
        try:
            async with anyio.create_task_group() as tasks:  # the way to give a coroutine context variables
                variables.run(tasks.start_soon, _call, function, *args)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is the observer's
            self._break(error)


async def _call(function: Callable[..., Any], *args: Any) -> None:
    value = function(*args)
    if inspect.isawaitable(value):
        await value


async def _finish(value: Awaitable[Any]) -> None:
    await value
