"""Watching a bus: observers, streams, and waiting for one event."""

# ruff: noqa: ASYNC109  # the error of a timeout names what was not found

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import UnionType
from typing import Any, TypeVar, overload

import anyio
from anyio.lowlevel import EventLoopToken

from phasebus.bus._buffers import Overflow, check_buffer
from phasebus.bus._checks import condition, count, flag, seconds, shown
from phasebus.bus._dispatch import Dispatcher
from phasebus.bus._errors import BusStateError, EventError
from phasebus.bus._forms import Handler, check_no_callback_class, events_of, shape_of
from phasebus.bus._observers import (
    Observation,
    Observer,
    TaskObservation,
    ThreadObservation,
    close_of,
    is_observer,
)
from phasebus.bus._plan import Plan
from phasebus.bus._registry import Registry
from phasebus.bus._selectors import Events, selector
from phasebus.bus._streams import Stream, StreamOpening
from phasebus.bus._thinning import Thinning
from phasebus.bus._watcher import Watcher

E = TypeVar("E")


class Watched(Dispatcher):
    """The watching side of a bus.

    Args:
        name: Its name in messages.
        history: How many of the latest events are kept.
        timing: Whether the duration of every call is measured.
        max_depth: How deep publishes may be nested in one another.
    """

    def __init__(self, name: str, *, history: int, timing: bool, max_depth: int) -> None:
        super().__init__(name, history, max_depth)
        self._registry = Registry(name, self._plans, timing=timing, recorded=history > 0)
        self._leaving: list[Observation] = []
        self._token: EventLoopToken | None = None

    def observe(
        self,
        events: Events,
        observer: Observer | Handler[Any],
        *,
        name: str | None = None,
        buffer: int = 10_000,
        overflow: Overflow = "drop_oldest",
        sample: float = 1.0,
        min_seconds: float = 0.0,
        coalesce: bool = False,
    ) -> Observation:
        """Let `observer` process each of the `events`, beside the publisher.

        One that is not asynchronous runs in a thread of its own; one that raises is switched off.

        Args:
            events: As for `subscribe`.
            observer: An `Observer`, or a callable that takes ``(event)`` or ``(event, context)``.
            name: A name of its own on this bus; by default that of the function or class.
            buffer: How many events may wait for it, at least 1.
            overflow: What happens to one more: the oldest is dropped and counted, or the publisher waits.
            sample: The share of events it gets, above 0 and at most 1. A step is observed whole or not at all.
            min_seconds: The least time between the progress events of one step, and between two events of one class that are no
                steps, in seconds; those in between are left out. The start and the end of a step never are.
            coalesce: Whether a progress event replaces an older one of the same step that still waits in the buffer.

        Raises:
            BusStateError: The bus is closed.
            CallbackSignatureError: The observer takes other arguments than these.
            OptionError: An option has a value that it cannot have.
            OrderError: The name is in use.
        """
        self._check_changeable("observe")
        check_buffer(buffer, overflow)
        flag("coalesce", coalesce)
        check_no_callback_class(observer)
        thinning = Thinning(sample, min_seconds)
        look: Any = observer
        close: Callable[[], Any] | None = None
        if is_observer(observer):
            look, close = observer.observe, close_of(observer)
        shape = shape_of(look)
        kind = TaskObservation if shape.awaited else ThreadObservation
        chosen = selector(events_of(look, shape.form, Any) if events is None else events)
        with self._registry.changing:
            observation = kind(
                self._unobserve,
                look,
                shape,
                close,
                name=self._registry.free_name(name, observer),
                selector=chosen,
                overflow=overflow,
                thinning=thinning if sample < 1 or min_seconds else None,
                coalesce=coalesce,
                limit=buffer,
            )
            self._registry.observe(observation)
        if self._token is not None:
            observation.start(self._token)
        return observation

    @overload
    def stream(
        self,
        events: type[E],
        *,
        buffer: int = ...,
        overflow: Overflow = ...,
        replay: int | bool = ...,
        present: bool = ...,
    ) -> AbstractAsyncContextManager[Stream[E]]: ...
    @overload
    def stream(
        self,
        events: Callable[..., E],
        *,
        buffer: int = ...,
        overflow: Overflow = ...,
        replay: int | bool = ...,
        present: bool = ...,
    ) -> AbstractAsyncContextManager[Stream[E]]: ...
    @overload
    def stream(
        self,
        events: Events = ...,
        *,
        buffer: int = ...,
        overflow: Overflow = ...,
        replay: int | bool = ...,
        present: bool = ...,
    ) -> AbstractAsyncContextManager[Stream[Any]]: ...
    def stream(
        self,
        events: Events = Any,
        *,
        buffer: int = 1_000,
        overflow: Overflow = "drop_oldest",
        replay: int | bool = 0,
        present: bool = False,
    ) -> AbstractAsyncContextManager[Stream[Any]]:
        """Give the `events` as an asynchronous iterator: ``async with bus.stream(T) as events: async for e in events``.

        It ends when the bus closes.

        Args:
            events: As for `subscribe`.
            buffer: How many events may wait to be taken.
            overflow: What happens to one more: the oldest is dropped and counted, or the publisher waits.
            replay: How many of the latest such events, of those the bus's history has kept, come first; True for all.
            present: Whether the starts of the steps that are running now come first of all, so that one who comes late misses none.

        Raises:
            BusStateError: The bus is not open.
            OptionError: An option has a value that it cannot have.
        """
        return StreamOpening(self._stream(events, buffer, overflow, replay, present=present))

    @asynccontextmanager
    async def _stream(
        self, events: Events, buffer: int, overflow: Overflow, replay: int | bool, *, present: bool
    ) -> AsyncIterator[Stream[Any]]:
        check_buffer(buffer, overflow)
        self._check_open("events can be streamed")
        chosen = selector(events)
        past = self._past.select(chosen, replay, present=present)
        with self._registry.changing:
            stream: Stream[Any] = Stream(self._registry.free_name(None, Stream), chosen, buffer, overflow, past)
            self._registry.observe(stream)
        try:
            yield stream
        finally:
            self._unobserve(stream)

    @overload
    async def find(
        self,
        events: type[E],
        *,
        where: Callable[[E], object] | None = ...,
        past: int | bool = ...,
        timeout: float | None = ...,
    ) -> E: ...
    @overload
    async def find(
        self,
        events: Callable[..., E],
        *,
        where: Callable[[E], object] | None = ...,
        past: int | bool = ...,
        timeout: float | None = ...,
    ) -> E: ...
    @overload
    async def find(
        self,
        events: str | UnionType | tuple[Any, ...],
        *,
        where: Callable[[Any], object] | None = ...,
        past: int | bool = ...,
        timeout: float | None = ...,
    ) -> Any: ...
    async def find(
        self,
        events: Events,
        *,
        where: Callable[[Any], object] | None = None,
        past: int | bool = 0,
        timeout: float | None = None,
    ) -> Any:
        """Return the first of the `events` for which `where` is true: the latest of the past, else the next that is published.

        Args:
            events: As for `subscribe`.
            where: Called with each of them, and not awaited; by default any will do.
            past: How many of the latest such events of the bus's history are searched, and whether the starts of the steps that
                are running now are; True for all.
            timeout: How long to wait for one, in seconds; None for as long as the bus is open.

        Raises:
            BusStateError: The bus is not open, or was closed before there was one.
            OptionError: An option has a value that it cannot have.
            TimeoutError: There was none in time.
        """
        if timeout is not None:
            seconds("timeout", timeout)
        if not isinstance(past, bool):
            count("past", past, at_least=0)
        holds = condition("where", where)
        self._check_open("an event can be found")
        chosen = selector(events)
        for event in reversed(self._past.select(chosen, past, present=bool(past))):
            if holds(event):
                return event
        with anyio.move_on_after(timeout):
            async with self.stream(events) as stream:
                async for event in stream:
                    if holds(event):
                        return event
            raise BusStateError(f"the bus {self.name!r} was closed before there was an event of {chosen.label}")
        raise TimeoutError(f"there was no event of {chosen.label} within {timeout:g} s")

    def _plan(self, event: object) -> Plan:
        """Return a new plan for events of the class of this one.

        Raises:
            BusStateError: The bus is closed, or has observers and is not open.
            EventError: It is a class itself.
        """
        if self.closed:
            raise BusStateError(f"the bus {self.name!r} is closed; publish before leaving its `async with`")
        if self._registry.observations and self._token is None:
            raise BusStateError(f"the bus {self.name!r} has observers, so it has to be opened first: async with bus: …")
        if isinstance(event, type):
            raise EventError(f"{event.__name__} is a class; publish an object of it: publish({event.__name__}(…))")
        if inspect.iscoroutine(event):
            raise EventError(
                f"{shown(event)} was not awaited; publish what it returns: publish(await {event.__name__}(…))"
            )
        plan = self._registry.plan(type(event))
        if isinstance(event, str) and not (plan.subscriptions or plan.observations):
            self._registry.warn_of_unused_text(event)
        return plan

    def _check_changeable(self, action: str) -> None:
        self._check_thread()
        if self.closed:
            raise BusStateError(f"the bus {self.name!r} is closed, so there is nothing more to {action}")

    def _check_open(self, purpose: str) -> None:
        if self._token is None or self.closed:
            raise BusStateError(f"the bus {self.name!r} has to be open (async with …) before {purpose}")
        self._check_thread()

    def _unobserve(self, observation: Watcher) -> None:
        self._check_thread()
        if self._registry.remove(observation):
            observation.buffer.end()
            if isinstance(observation, Observation) and self._token is not None:
                self._leaving = [other for other in (*self._leaving, observation) if not other.done.is_set()]
