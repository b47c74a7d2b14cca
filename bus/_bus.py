"""The bus: who is subscribed, who watches, and the way in for events."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import copy_context
from operator import length_hint
from threading import get_ident
from types import TracebackType
from typing import Any, Self, cast, overload

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import EventLoopToken, current_token

from phasebus.bus._buffers import Overflow
from phasebus.bus._context import Context
from phasebus.bus._dispatch import Nested, Plan, dispatch, publishing
from phasebus.bus._errors import BusStateError, NestingError, OrderError, WrongThreadError
from phasebus.bus._events import PhaseEvent
from phasebus.bus._forms import Callback, events_of, name_of, shape_of
from phasebus.bus._observers import Observation, Observer, TaskObservation, ThreadObservation, logger
from phasebus.bus._order import Stage, check_names, explained, ordered
from phasebus.bus._outcome import Outcome
from phasebus.bus._policies import OnError
from phasebus.bus._selectors import Events, is_selector, selector
from phasebus.bus._stats import SubscriberStats
from phasebus.bus._steps import AttributeValue, CallbackStarted, Step, StepKind, run_step
from phasebus.bus._streams import Stream
from phasebus.bus._subscription import Subscription
from phasebus.bus._threads import Threads
from phasebus.bus._view import View

_outer = publishing.get
_enter = publishing.set
_leave = publishing.reset


class Bus:
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
        self.name = name
        self._timing = timing
        self._max_depth = max_depth
        self._drain_seconds = drain_seconds
        self._history: deque[tuple[object, object, int]] | None = deque(maxlen=history) if history else None
        self._subscriptions: list[Subscription] = []
        self._observations: list[Observation | Stream] = []
        self._leaving: list[Observation] = []
        self._plans: dict[type, Plan] = {}
        self._thread: int | None = None
        self._token: EventLoopToken | None = None
        self._tasks: TaskGroup | None = None
        self._closed = False

    async def publish(self, event: object, context: Context | View | None = None) -> Outcome:
        """Hand `event` to the observers, and to each subscriber in turn; return what became of them.

        Args:
            event: An object of any class.
            context: What the subscribers share; a new one if there is none.

        Raises:
            Exception: Whatever a subscriber raised, with a note that names the subscriber; an ExceptionGroup if others
                had been isolated before it.
            BusStateError: The bus is closed, or has observers and is not open.
            WrongThreadError: The bus belongs to another thread.
            NestingError: Publishes have caused one another too deeply.
        """
        try:
            plan = self._plans[type(event)]
        except KeyError:
            plan = self._plan(type(event))
        calls = plan.plain
        if calls is not None and not calls:
            return plan.quiet
        if get_ident() != self._thread:
            self._bind_thread()
        outer = _outer(None)
        if calls is None or outer is not None:
            return await self._publish_fully(plan, event, context, outer)
        token = _enter(event)
        values: dict[int, Any] = {}
        rest = iter(calls)
        try:
            for call in rest:
                value = await call(event)
                if value is not None:
                    plan.keep(values, len(calls) - length_hint(rest) - 1, value, event, context)
        except BaseException as error:
            plan.failed(len(calls) - length_hint(rest) - 1, event, error)
            raise
        finally:
            _leave(token)
        plan.completed += 1
        return Outcome(plan.subscriptions, values, {}, None, None) if values else plan.quiet

    async def _publish_fully(self, plan: Plan, event: object, context: Context | View | None, outer: Any) -> Outcome:
        if context is None:
            context = Context()
        parent: object = None
        entered: object = event
        if outer is not None:
            parent = outer.event if isinstance(outer, Nested) else outer
            entered = nested = Nested(event, outer)
            if nested.depth > self._max_depth:
                raise NestingError(
                    f"publishes have caused one another {nested.depth} deep, and {self._max_depth} are allowed: "
                    f"{nested.chain()}; break the circle, or make the bus with a larger max_depth"
                )
        token = _enter(entered)
        try:
            if self._history is not None:
                self._history.append((event, parent, time.time_ns()))
            for observation in plan.observations:
                buffer = observation.buffer
                if observation.overflow == "block" and buffer.full:
                    await buffer.room()
                buffer.put((event, context, copy_context()))
            if not plan.subscriptions:
                return plan.quiet
            return await dispatch(self, plan, event, context, parent)
        finally:
            _leave(token)

    @overload
    def subscribe(
        self,
        events: Events = ...,
        callback: None = None,
        *,
        name: str | None = ...,
        stage: Stage = ...,
        before: str | Iterable[str] = ...,
        after: str | Iterable[str] = ...,
        on_error: OnError = ...,
        timeout: float | None = ...,
        thread: bool = ...,
    ) -> Callable[[Callback], Subscription]: ...
    @overload
    def subscribe(
        self,
        events: Events,
        callback: Callback,
        *,
        name: str | None = ...,
        stage: Stage = ...,
        before: str | Iterable[str] = ...,
        after: str | Iterable[str] = ...,
        on_error: OnError = ...,
        timeout: float | None = ...,
        thread: bool = ...,
    ) -> Subscription: ...
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
        shape = shape_of(callback)
        subscription = Subscription(
            self,
            callback,
            shape,
            selector(events_of(callback, shape.form, Any) if events is None else events),
            name=self._free_name(name, callback),
            stage=stage,
            before=(before,) if isinstance(before, str) else tuple(before),
            after=(after,) if isinstance(after, str) else tuple(after),
            on_error=on_error,
            timeout=timeout,
            thread=thread,
        )
        check_names(subscription, {other.name for other in self._subscriptions})
        ordered([*self._subscriptions, subscription])
        self._subscriptions.append(subscription)
        self._forget_plans()
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
        look = observer.observe if isinstance(observer, Observer) else observer
        shape = shape_of(look)
        kind = TaskObservation if shape.awaited else ThreadObservation
        observation = kind(
            self,
            self._free_name(name, observer),
            look,
            shape,
            selector(events_of(look, shape.form, Any) if events is None else events),
            overflow,
            limit=buffer,
        )
        self._observations.append(observation)
        self._forget_plans()
        if self._tasks is not None:
            observation.start()
        return observation

    @asynccontextmanager
    async def stream(
        self, events: Events = Any, *, buffer: int = 1_000, overflow: Overflow = "drop_oldest", replay: int = 0
    ) -> AsyncIterator[Stream]:
        """Give the `events` as an asynchronous iterator: ``async with bus.stream(T) as events: async for e in events``.

        Args:
            events: As for `subscribe`.
            buffer: How many events may wait to be taken.
            overflow: What happens to one more: the oldest is dropped and counted, or the publisher waits.
            replay: How many of the latest such events, of those the bus's history has kept, come first.
        """
        chosen = selector(events)
        past = [event for event, _, _ in self._history or () if replay and chosen.matches(type(event))]
        stream = Stream(self._free_name("stream", None), chosen, buffer, overflow, past[-replay:] if replay else ())
        self._observations.append(stream)
        self._forget_plans()
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
        """
        if self._thread is None or self._token is None or self._tasks is None:
            raise BusStateError(f"the bus {self.name!r} has to be open (async with …) before other threads can publish")
        return Threads(self, self._thread, self._token)

    def wants(self, event: type) -> bool:
        """Return whether anybody would hear an event of this class: if not, it need not be built."""
        try:
            plan = self._plans[event]
        except KeyError:
            plan = self._plan(event)
        return bool(plan.subscriptions or plan.observations) or self._history is not None

    def stats(self) -> tuple[SubscriberStats, ...]:
        """Return what every subscriber and observer has done so far."""
        for plan in self._plans.values():
            plan.settle()
        return (
            *(subscription.tally.read(subscription.name) for subscription in self._subscriptions),
            *(observation.stats() for observation in self._observations),
        )

    def explain(self, event: type) -> str:
        """Return, for people, who is called for events of this class, in which order and why."""
        matching = [s for s in ordered(self._subscriptions) if s.selector.matches(event)]
        watching = [o for o in self._observations if o.selector.matches(event)]
        return explained(event.__name__, matching, [(o.name, o.selector.label) for o in watching])

    async def __aenter__(self) -> Self:
        if self._tasks is not None or self._closed:
            raise BusStateError(f"the bus {self.name!r} was opened before; make a new one")
        self._tasks = await anyio.create_task_group().__aenter__()
        self._thread = get_ident()
        self._token = current_token()
        self._forget_plans()
        for observation in self._observations:
            if isinstance(observation, Observation):
                observation.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        tasks = cast("TaskGroup", self._tasks)
        with anyio.CancelScope(shield=True):
            await self._drain()
        self._closed = True
        self._forget_plans()
        tasks.cancel_scope.cancel()
        await tasks.__aexit__(None, None, None)  # an error of the body is not the observers', and leaves as it came

    async def _drain(self) -> None:
        """End the streams, and let observers look at what is left: all at once, until the deadline."""
        watching = [o for o in (*self._observations, *self._leaving) if isinstance(o, Observation)]
        for stream in self._observations:
            if isinstance(stream, Stream):
                stream.buffer.end()
        async with anyio.create_task_group() as tasks:
            for observation in watching:
                tasks.start_soon(self._drain_one, observation)

    async def _drain_one(self, observation: Observation) -> None:
        if not await observation.drain(self._drain_seconds):
            logger.warning(
                "observer %r was not done within %g s and is left behind; what it had not seen is lost to it",
                observation.name,
                self._drain_seconds,
            )

    def _plan(self, event: type) -> Plan:
        """Make, and remember, the plan for events of this class."""
        if self._closed:
            raise BusStateError(f"the bus {self.name!r} is closed; publish before leaving its `async with`")
        observations = tuple(o for o in self._observations if o.selector.matches(event))
        if observations and self._tasks is None:
            raise BusStateError(f"the bus {self.name!r} has observers, so it has to be opened first: async with bus: …")
        subscriptions = tuple(s for s in ordered(self._subscriptions) if s.selector.matches(event))
        narrated = bool(subscriptions) and issubclass(event, PhaseEvent) and self.wants(CallbackStarted)
        plan = Plan(
            subscriptions,
            observations,
            narrated=narrated,
            timing=self._timing,
            recorded=self._history is not None,
        )
        self._plans[event] = plan
        return plan

    def _forget_plans(self) -> None:
        for plan in self._plans.values():
            plan.settle()
        self._plans.clear()

    def _bind_thread(self) -> None:
        """Take the first publisher's thread for the bus's own, and refuse every other."""
        if self._thread is not None:
            raise WrongThreadError(
                f"the bus {self.name!r} belongs to another thread (and its event loop); "
                "from here, publish through bus.threads(), taken while the bus is open"
            )
        self._thread = get_ident()

    def _free_name(self, name: str | None, callback: object) -> str:
        """Return the name for a new subscriber or observer: the one asked for, or the first free one like it.

        Raises:
            OrderError: The name asked for is taken.
        """
        taken = {other.name for other in (*self._subscriptions, *self._observations)}
        if name is not None and callback is not None and name in taken:
            raise OrderError(f"there is a subscriber or observer {name!r} on the bus {self.name!r} already")
        wanted = name or name_of(callback)
        number = 1
        free = wanted
        while free in taken:
            number += 1
            free = f"{wanted}-{number}"
        return free

    def _start_task(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        cast("TaskGroup", self._tasks).start_soon(run)

    def _unsubscribe(self, subscription: Subscription) -> None:
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)
            self._forget_plans()

    def _unobserve(self, observation: Observation | Stream) -> None:
        if observation in self._observations:
            self._observations.remove(observation)
            self._forget_plans()
            if isinstance(observation, Observation) and self._tasks is not None:
                observation.buffer.end()
                self._leaving.append(observation)
