"""Observers: subscribers that only watch, beside the publisher and behind a buffer of their own."""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

import anyio
import anyio.to_thread

from phasebus.bus._buffers import Item, Overflow, TaskBuffer, ThreadBuffer
from phasebus.bus._forms import Form, Shape
from phasebus.bus._selectors import Selector
from phasebus.bus._stats import SubscriberStats
from phasebus.bus._view import ReadOnlyContext

if TYPE_CHECKING:
    from phasebus.bus._bus import Bus

logger = logging.getLogger("phasebus.bus")


@runtime_checkable
class Observer(Protocol):
    """An object that watches: the annotation of `observe`'s argument says which events it is given.

    A method ``close(self)``, if it has one, is called after its last event.
    """

    def observe(self, event: Any) -> Any:
        """Look at one event. It may be a coroutine function."""


class Observation:
    """The handle of an observer; leaving it as a context manager ends the observing.

    Attributes:
        name: The name it is known by, unique on its bus.
        overflow: What happens to an event that finds the observer's buffer full.
    """

    def __init__(
        self, bus: Bus, name: str, observe: Callable[..., Any], shape: Shape, selector: Selector, overflow: Overflow
    ) -> None:
        self._bus = bus
        self._observe = observe
        self._with_context = shape.form is Form.EVENT_AND_CONTEXT
        self._close = getattr(getattr(observe, "__self__", observe), "close", None)
        self.name = name
        self.selector = selector
        self.overflow = overflow
        self.calls = 0
        self.broken = False

    @property
    def buffer(self) -> TaskBuffer | ThreadBuffer:
        """Where events wait for it."""
        raise NotImplementedError

    def start(self) -> None:
        """Begin to look at what is in the buffer."""
        raise NotImplementedError

    async def drain(self, seconds: float) -> bool:
        """Look at what is left and close; return whether that was done within `seconds`."""
        raise NotImplementedError

    def unsubscribe(self) -> None:
        """Watch no more. What is in the buffer is still looked at. May be called twice."""
        self._bus._unobserve(self)

    def stats(self) -> SubscriberStats:
        """Return what it has done so far."""
        return SubscriberStats(
            name=self.name, role="observer", calls=self.calls, errors=int(self.broken), drops=self.buffer.drops
        )

    def _arguments(self, item: Item) -> tuple[Any, ...]:
        event, context, _ = item
        if not self._with_context:
            return (event,)
        return event, None if context is None else ReadOnlyContext(context)

    def _break(self) -> None:
        """Switch the observer off, and say so: the program goes on without it."""
        self.broken = True
        logger.exception("observer %r failed and is switched off; the start-up goes on without it", self.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.unsubscribe()


class ThreadObservation(Observation):
    """A synchronous observer, in a daemon thread of its own: it may block for as long as it likes."""

    def __init__(self, *args: Any, limit: int) -> None:
        super().__init__(*args)
        self._buffer = ThreadBuffer(limit)
        self._thread = threading.Thread(target=self._run, name=f"phasebus observer {self.name}", daemon=True)

    @property
    def buffer(self) -> ThreadBuffer:
        """Where events wait for it."""
        return self._buffer

    def start(self) -> None:
        """Begin to look at what is in the buffer."""
        self._thread.start()

    async def drain(self, seconds: float) -> bool:
        """Look at what is left and close; return whether that was done within `seconds`."""
        self._buffer.end()
        await anyio.to_thread.run_sync(self._thread.join, seconds, abandon_on_cancel=True)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (item := self._buffer.take()) is not None:
            if not self.broken:
                try:
                    item[2].run(self._observe, *self._arguments(item))
                    self.calls += 1
                except Exception:
                    self._break()
        if self._close is not None:
            try:
                self._close()
            except Exception:
                self._break()


class TaskObservation(Observation):
    """An asynchronous observer, in a task of the bus."""

    def __init__(self, *args: Any, limit: int) -> None:
        super().__init__(*args)
        self._buffer = TaskBuffer(limit)
        self._done = anyio.Event()

    @property
    def buffer(self) -> TaskBuffer:
        """Where events wait for it."""
        return self._buffer

    def start(self) -> None:
        """Begin to look at what is in the buffer."""
        self._bus._start_task(self._run)

    async def drain(self, seconds: float) -> bool:
        """Look at what is left and close; return whether that was done within `seconds`."""
        self._buffer.end()
        with anyio.move_on_after(seconds):
            await self._done.wait()
        return self._done.is_set()

    async def _run(self) -> None:
        while (item := await self._buffer.take()) is not None:
            if not self.broken:
                try:
                    async with anyio.create_task_group() as tasks:  # the way to give a coroutine context variables
                        item[2].run(tasks.start_soon, self._observe, *self._arguments(item))
                    self.calls += 1
                except Exception:
                    self._break()
        if self._close is not None:
            try:
                closing = self._close()
                if inspect.isawaitable(closing):
                    await closing
            except Exception:
                self._break()
        self._done.set()
