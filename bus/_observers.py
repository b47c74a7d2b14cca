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
from typing import Any, Protocol, Self, TypeGuard, cast, runtime_checkable

import anyio
import anyio.from_thread
from anyio.lowlevel import EventLoopToken

from phasebus.bus._buffers import Item, Overflow, TaskBuffer, ThreadBuffer
from phasebus.bus._forms import Form, Shape
from phasebus.bus._functions import attribute_of
from phasebus.bus._handling import handling, running_cause
from phasebus.bus._log import log
from phasebus.bus._loops import InContext, call_soon_here, cancellation_requested, spawn, task_was_cancelled
from phasebus.bus._selectors import Selector
from phasebus.bus._stats import SubscriberStats
from phasebus.bus._step_events import StepProgress
from phasebus.bus._thinning import Thinning
from phasebus.bus._view import ReadOnlyContext
from phasebus.bus._watcher import Watcher, observing


@runtime_checkable
class Observer(Protocol):
    """An object that watches: the annotation of `observe`'s argument selects its events.

    A method ``close(self)``, if it has one, is called after its last event.
    """

    def observe(self, event: Any) -> Any:
        """Process one event. It may be a coroutine function."""


def is_observer(thing: object) -> TypeGuard[Observer]:
    """Return whether `thing` has a method `observe`; one that answers to any name does not count, except for a mock of an observer.

    A property of this name is not run, and a flag called so makes no observer.
    """
    has_one = any(inspect.getattr_static(each, "observe", None) is not None for each in (thing, thing.__class__))
    return has_one and callable(attribute_of(thing, "observe"))


def close_of(observer: Observer) -> Callable[[], Any] | None:
    """Return the method `close` of `observer`, if it has one."""
    close: Callable[[], Any] | None = attribute_of(observer, "close")
    return close if callable(close) else None


class Observation(Watcher):
    """The handle of an observer; leaving it as a context manager ends the observing.

    Attributes:
        done: Set when it has processed its last event and is closed.
    """

    def __init__(
        self,
        leave: Callable[[Observation], None],
        look: Callable[..., Any],
        shape: Shape,
        close: Callable[[], Any] | None,
        *,
        buffer: TaskBuffer | ThreadBuffer,
        selector: Selector,
        overflow: Overflow,
        thinning: Thinning | None,
        coalesce: bool,
    ) -> None:
        super().__init__(buffer, selector, overflow, thinning, takes_context=shape.form is Form.EVENT_AND_CONTEXT)
        self._latest: dict[str, Item] = {}
        self._coalescing = threading.Lock()
        self._leave = leave
        self._look = look
        self._close = close
        self._calls = 0
        self._broken = False
        self.done = anyio.Event()
        if coalesce:
            self.put = self._put_latest

    def _put_latest(self, item: Item) -> None:
        """Put an event into the buffer, in place of an older progress event of the same step."""
        event = item[0]
        with self._coalescing:
            if isinstance(event, StepProgress):
                waiting = event.step in self._latest
                self._latest[event.step] = item
                if waiting:
                    return
            dropped = self.buffer.put(item)
            if dropped is not None and isinstance(dropped[0], StepProgress):
                self._latest.pop(dropped[0].step, None)

    def start(self, token: EventLoopToken) -> None:
        """Begin to process what is in the buffer."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Abandon the event that is being processed, and those in the buffer, as far as that is possible."""

    def unsubscribe(self) -> None:
        """End the observing. What is in the buffer is still processed. May be called twice."""
        self._leave(self)

    def stats(self) -> SubscriberStats:
        """Return its counts so far."""
        return SubscriberStats(
            name=self.name, role="observer", calls=self._calls, errors=int(self._broken), drops=self.buffer.drops
        )

    def _enter(self, item: Item) -> tuple[ContextVars, tuple[Any, ...]]:
        """Return the context variables to process `item` with, and the arguments of the observer."""
        if self._latest and isinstance(item[0], StepProgress):
            with self._coalescing:
                item = self._latest.pop(item[0].step, item)
        event, context, variables = item
        self._calls += 1
        variables.run(_begin, self, event)
        return variables, (event, ReadOnlyContext(context)) if self.takes_context else (event,)

    def _break(self, error: BaseException) -> None:
        """Switch the observer off and log that: the publisher goes on without it."""
        self._broken = True
        self.put = self.buffer.put
        self._latest.clear()
        log(
            logging.ERROR,
            "observer %r failed and is switched off; the publisher goes on without it",
            self.name,
            error=error,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.unsubscribe()


class ThreadObservation(Observation):
    """A synchronous observer, in a daemon thread of its own: it may block for as long as it likes."""

    buffer: ThreadBuffer

    def __init__(self, *args: Any, name: str, limit: int, **kwargs: Any) -> None:
        super().__init__(*args, buffer=ThreadBuffer(name, limit), **kwargs)
        self._soon: Callable[[Callable[[], object]], object] | None = None

    def start(self, token: EventLoopToken) -> None:
        """Begin to process what is in the buffer."""
        self._soon = call_soon_here()
        threading.Thread(
            target=self._run, args=(token, self._soon), name=f"phasebus observer {self.name}", daemon=True
        ).start()

    def unsubscribe(self) -> None:
        """End the observing. What is in the buffer is still processed. May be called twice, and by the observer itself."""
        if observing.get() is self and self._soon is not None:
            self._soon(super().unsubscribe)
        else:
            super().unsubscribe()

    def _run(self, token: EventLoopToken, soon: Callable[[Callable[[], object]], object]) -> None:
        while (item := self.buffer.take()) is not None:
            if not self._broken:
                variables, arguments = self._enter(item)
                self._try(token, variables.run, self._look, *arguments)
                del variables, arguments
            del item  # or its event is held until the next one
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
    """An asynchronous observer, in a task of its own."""

    buffer: TaskBuffer

    def __init__(self, *args: Any, name: str, limit: int, **kwargs: Any) -> None:
        super().__init__(*args, buffer=TaskBuffer(name, limit), **kwargs)
        self._scope: anyio.CancelScope | None = None
        self._task: object = None

    def start(self, token: EventLoopToken) -> None:
        """Begin to process what is in the buffer."""
        self._scope = anyio.CancelScope()
        self._task = spawn(self._run, f"phasebus observer {self.name}")

    def cancel(self) -> None:
        """Abandon the event that is being processed, and those in the buffer."""
        if self._scope is not None:
            self._scope.cancel()

    async def _run(self) -> None:
        scope = cast("anyio.CancelScope", self._scope)
        try:
            with scope:
                while (item := await self.buffer.take()) is not None:
                    if not self._broken:
                        variables, arguments = self._enter(item)
                        await self._try(variables, self._look, *arguments)
                        del variables, arguments
                    del item  # or its event is held until the next one
                    if self._broken and task_was_cancelled():
                        break
                if self._close is not None:
                    await self._try(copy_context(), self._close)
        finally:
            self._task = None
            self.done.set()

    async def _try(self, variables: ContextVars, function: Callable[..., Any], *args: Any) -> None:
        try:
            value = variables.run(function, *args)
            if inspect.isawaitable(value):
                await InContext(value, variables)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except anyio.get_cancelled_exc_class() as error:
            if cancellation_requested():
                raise
            self._break(error)  # the observer raised it by itself
        except BaseException as error:  # noqa: BLE001  # SystemExit, or a group with one, ends the observer and not the program
            self._break(error)


def _begin(observation: Observation, event: object) -> None:
    """Set the context variables for the processing of `event`: what is published meanwhile is caused by it."""
    observing.set(observation)
    outer = handling.get()
    handling.set([event, None if outer is None else running_cause(outer), False])


async def _finish(value: Awaitable[Any]) -> None:
    await value
