"""The bus: who is subscribed, who watches, and the way in for events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from threading import Thread, current_thread
from types import TracebackType, UnionType
from typing import Any, Self, Unpack, cast, overload

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import EventLoopToken, current_token

from phasebus.bus._buffers import Overflow
from phasebus.bus._dispatch import Dispatcher
from phasebus.bus._errors import BusStateError
from phasebus.bus._forms import Callback, events_of, shape_of
from phasebus.bus._observers import Observation, Observer, TaskObservation, ThreadObservation, close_of, logger
from phasebus.bus._order import Stage
from phasebus.bus._plan import Plan
from phasebus.bus._policies import OnError
from phasebus.bus._registry import Registry
from phasebus.bus._selectors import Events, is_selector, selector
from phasebus.bus._stats import SubscriberStats
from phasebus.bus._steps import AttributeValue, Step, StepKind, run_step
from phasebus.bus._streams import Stream
from phasebus.bus._subscription import Options, Subscription
from phasebus.bus._threads import Threads


class Bus(Dispatcher):
    """An in-process event bus.

    Subscribers run one after the other, awaited by the publisher, and may change the context they share. Observers
    watch beside the publisher and can do it no harm. A bus without observers, streams or threads may be used as it is;
    for these it has to be opened: ``async with Bus() as bus``.

    Args:
        name: The name it is known by in messages.
        history: How many of the latest events are kept for `stream(replay=…)`.
        timing: Whether the duration of every call is measured, for outcomes and `stats`.
        max_depth: How deep publishes may be nested in one another.
        drain_seconds: How long observers get, in seconds, to look at what is left when the bus closes.

    Attributes:
        closed: Whether it was open, and is no more.
    """

    def __init__(
        self,
        name: str = "phasebus",
        *,
        history: int = 0,
        timing: bool = False,
        max_depth: int = 32,
        drain_seconds: float = 2.0,
    ) -> None:
        super().__init__(name, history, max_depth)
        self._drain_seconds = drain_seconds
        self._registry = Registry(name, self._plans, timing=timing, recorded=history > 0)
        self._leaving: list[Observation] = []
        self._token: EventLoopToken | None = None
        self._tasks: TaskGroup | None = None
        self.closed = False

    @overload
    def subscribe(  # type: ignore[overload-overlap]  # classes are callable, but here they choose events
        self, events: type | UnionType | str | tuple[Any, ...] | None = ..., **options: Unpack[Options]
    ) -> Callable[[Callback], Subscription]: ...
    @overload
    def subscribe(self, events: Callback, /, **options: Unpack[Options]) -> Subscription: ...
    @overload
    def subscribe(self, events: Events, callback: Callback, **options: Unpack[Options]) -> Subscription: ...
    def subscribe(
        self,
        events: Events = None,
        callback: Callback | None = None,
        *,
        name: str | None = None,
        stage: Stage = Stage.NORMAL,
        before: str | Iterable[str] = (),
        after: str | Iterable[str] = (),
        on_error: OnError = "raise",
        timeout: float | None = None,
        thread: bool = False,
    ) -> Subscription | Callable[[Callback], Subscription]:
        """Have `callback` called for each of the `events`; without a callback, a decorator for one.

        ``subscribe(callback)`` and ``@subscribe`` leave the choice of events to the callback's annotation.

        Args:
            events: A class (and its subclasses), a union, a runtime protocol, the name of a phase, or `Any`. None: what
                the annotation of the callback's first argument says; every phase for the short form; else everything.
            callback: A callable that takes ``(event)``, ``(event, context)`` or ``(phase, config, data)``.
            name: A name of its own on this bus; by default that of the function or class.
            stage: The coarse place in the order.
            before: Names of subscribers that are to run after this one.
            after: Names of subscribers that are to run before this one.
            on_error: ``"raise"`` ends the publish with the error, ``"isolate"`` puts it into the outcome and goes on,
                a `Retry` calls again and then raises.
            timeout: The longest it may take, in seconds.
            thread: Run it in a worker thread: for callables that block.

        Raises:
            CallbackSignatureError: The callback takes other arguments than these.
            OrderError: `before` or `after` names nobody, or closes a cycle; or the name is taken.
        """
        if callback is None and events is not None and not is_selector(events):
            events, callback = None, events
        if callback is None:
            return lambda function: self.subscribe(
                events,
                function,
                name=name,
                stage=stage,
                before=before,
                after=after,
                on_error=on_error,
                timeout=timeout,
                thread=thread,
            )
        self._check_thread()
        shape = shape_of(callback)
        subscription = Subscription(
            self._unsubscribe,
            callback,
            shape,
            selector(events_of(callback, shape.form, Any) if events is None else events),
            name=self._registry.free_name(name, callback),
            stage=stage,
            before=(before,) if isinstance(before, str) else tuple(before),
            after=(after,) if isinstance(after, str) else tuple(after),
            on_error=on_error,
            timeout=timeout,
            thread=thread,
        )
        self._registry.subscribe(subscription)
        return subscription

    def observe(
        self,
        events: Events,
        observer: Observer | Callback,
        *,
        name: str | None = None,
        buffer: int = 10_000,
        overflow: Overflow = "drop_oldest",
    ) -> Observation:
        """Have `observer` look at each of the `events`, beside the publisher.

        One that is not asynchronous runs in a thread of its own; one that raises is switched off.

        Args:
            events: As for `subscribe`.
            observer: An `Observer`, or a callable that takes ``(event)`` or ``(event, context)``.
            name: A name of its own on this bus; by default that of the function or class.
            buffer: How many events may wait for it.
            overflow: What happens to one more: the oldest is dropped and counted, or the publisher waits.
        """
        self._check_thread()
        if self.closed:
            raise BusStateError(f"the bus {self.name!r} is closed, so there is nothing more to observe")
        look, close = (observer.observe, close_of(observer)) if isinstance(observer, Observer) else (observer, None)
        shape = shape_of(look)
        kind = TaskObservation if shape.awaited else ThreadObservation
        observation = kind(
            self._unobserve,
            look,
            shape,
            close,
            name=self._registry.free_name(name, observer),
            selector=selector(events_of(look, shape.form, Any) if events is None else events),
            overflow=overflow,
            limit=buffer,
        )
        self._registry.observe(observation)
        if self._tasks is not None:
            observation.start(self._tasks, cast("EventLoopToken", self._token))
        return observation

    @asynccontextmanager
    async def stream(
        self, events: Events = Any, *, buffer: int = 1_000, overflow: Overflow = "drop_oldest", replay: int | bool = 0
    ) -> AsyncIterator[Stream]:
        """Give the `events` as an asynchronous iterator: ``async with bus.stream(T) as events: async for e in events``.

        It ends when the bus closes.

        Args:
            events: As for `subscribe`.
            buffer: How many events may wait to be taken.
            overflow: What happens to one more: the oldest is dropped and counted, or the publisher waits.
            replay: How many of the latest such events, of those the bus's history has kept, come first; True for all.

        Raises:
            BusStateError: The bus is not open.
        """
        self._check_open("events can be streamed")
        chosen = selector(events)
        past = [event for event, _, _ in self._history or () if replay and chosen.matches(type(event))]
        if replay is not True:
            past = past[-replay:] if replay else []
        stream = Stream(self._registry.free_name(None, Stream), chosen, buffer, overflow, past)
        self._registry.observe(stream)
        try:
            yield stream
        finally:
            self._unobserve(stream)

    def step(
        self,
        kind: StepKind,
        name: str,
        *,
        parent: str | None = None,
        attributes: Mapping[str, AttributeValue] | None = None,
    ) -> AbstractAsyncContextManager[Step]:
        """Run a piece of work as a step: its start, and its one end however it comes, are published.

        Args:
            kind: The kind of step, and its event classes.
            name: Which one of its kind.
            parent: The id of the step it belongs to; by default the step that is running in this context.
            attributes: What is known of it at the start.
        """
        return run_step(self, kind, name, parent, attributes or {})

    def threads(self) -> Threads:
        """Return the way to publish from other threads.

        Raises:
            BusStateError: The bus is not open.
            WrongThreadError: This is another thread already; take it in the bus's own and hand it on.
        """
        self._check_open("other threads can publish")
        return Threads(self, cast("Thread", self._thread), cast("EventLoopToken", self._token))

    def wants(self, event: type) -> bool:
        """Return whether anybody would hear an event of this class: if not, it need not be built."""
        return not self.closed and self._registry.wants(event)

    def stats(self) -> tuple[SubscriberStats, ...]:
        """Return what every subscriber and observer has done so far. May be called in any thread."""
        return self._registry.stats()

    def explain(self, event: type) -> str:
        """Return, for people, who is called for events of this class, in which order and why."""
        return self._registry.explain(event)

    async def __aenter__(self) -> Self:
        if self._tasks is not None or self.closed:
            raise BusStateError(f"the bus {self.name!r} was opened before; make a new one")
        self._check_thread()
        self._tasks = await anyio.create_task_group().__aenter__()
        self._thread = current_thread()
        self._token = current_token()
        self._registry.forget_plans()
        for observation in self._registry.observations:
            if isinstance(observation, Observation):
                observation.start(self._tasks, self._token)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        tasks = cast("TaskGroup", self._tasks)
        with anyio.CancelScope(shield=True):
            await self._drain()
        self.closed = True  # only now: what observers publish while they are drained still reaches subscribers
        self._registry.forget_plans()
        tasks.cancel_scope.cancel()
        await tasks.__aexit__(None, None, None)  # an error of the body is not the observers', and leaves as it came

    async def _drain(self) -> None:
        """End the streams, and let observers look at what is left until the deadline."""
        watching = [*self._registry.observations, *self._leaving]
        for observation in watching:
            observation.buffer.end()
        late = {observation for observation in watching if isinstance(observation, Observation)}
        with anyio.move_on_after(self._drain_seconds):
            while late:
                observation = next(iter(late))
                await observation.done.wait()
                late.discard(observation)
        for observation in late:
            if not observation.done.is_set():
                logger.warning(
                    "observer %r was not done within %g s and is left behind; what it had not seen is lost to it",
                    observation.name,
                    self._drain_seconds,
                )

    def _plan(self, event: type) -> Plan:
        """Return a new plan for events of this class.

        Raises:
            BusStateError: The bus is closed, or has observers and is not open.
        """
        if self.closed:
            raise BusStateError(f"the bus {self.name!r} is closed; publish before leaving its `async with`")
        if self._registry.observations and self._tasks is None:
            raise BusStateError(f"the bus {self.name!r} has observers, so it has to be opened first: async with bus: …")
        return self._registry.plan(event)

    def _check_open(self, purpose: str) -> None:
        if self._tasks is None or self.closed:
            raise BusStateError(f"the bus {self.name!r} has to be open (async with …) before {purpose}")
        self._check_thread()

    def _unsubscribe(self, subscription: Subscription) -> None:
        self._check_thread()
        self._registry.remove(subscription)

    def _unobserve(self, observation: Observation | Stream) -> None:
        self._check_thread()
        if self._registry.remove(observation):
            observation.buffer.end()
            if isinstance(observation, Observation) and self._tasks is not None:
                self._leaving = [other for other in (*self._leaving, observation) if not other.done.is_set()]
