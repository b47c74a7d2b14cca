"""The bus: subscribing, observing, streaming, and its opening and closing. Publishing is in `_dispatch`."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import get_ident
from types import TracebackType, UnionType
from typing import Any, Protocol, Self, TypeVar, Unpack, cast, overload

import anyio
from anyio.lowlevel import EventLoopToken, current_token

from phasebus.bus._checks import count, flag, names, seconds, shown
from phasebus.bus._errors import BusStateError, OptionError
from phasebus.bus._forms import Callback, Handler, check_event, check_no_callback_class, events_of, shape_of
from phasebus.bus._log import log
from phasebus.bus._observers import Observation, TaskObservation
from phasebus.bus._order import Stage
from phasebus.bus._selectors import Events, event_class, is_selector, selector
from phasebus.bus._stats import SubscriberStats
from phasebus.bus._step_events import AttributeValue, StepKind
from phasebus.bus._steps import Step
from phasebus.bus._subscription import OnError, Options, Subscription, check_options
from phasebus.bus._threads import Threads
from phasebus.bus._watching import Watched

E = TypeVar("E")
F = TypeVar("F", bound=Callable[[Any], Any] | Callable[[Any, Any], Any] | Callable[[Any, Any, Any], Any])

CANCEL_SECONDS = 1.0
"""How long an asynchronous observer that was cancelled when the bus closed may take to end, in seconds."""


class Decorator(Protocol):
    """What `Bus.subscribe` returns without a callback: it subscribes a function, and returns it as it was."""

    def __call__(self, function: F, /) -> F: ...


class Bus(Watched):
    """An in-process event bus.

    Subscribers run one after the other, awaited by the publisher, and may change the context they share. Observers
    watch beside the publisher and can do it no harm. A bus without observers, streams or threads may be used as it is, in
    any thread and event loop; for these it has to be opened, ``async with Bus() as bus``, and belongs to that thread.

    Args:
        name: Its name in messages.
        history: How many of the latest events are kept for `stream(replay=…)`.
        timing: Whether the duration of every call is measured, for outcomes and `stats`.
        max_depth: How deep publishes may be nested in one another.
        drain_seconds: How long observers may process what is left when the bus closes, in seconds.

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
        count("history", history, at_least=0)
        count("max_depth", max_depth, at_least=1)
        seconds("drain_seconds", drain_seconds)
        flag("timing", timing)
        super().__init__(name, history=history, timing=timing, max_depth=max_depth)
        self._drain_seconds = drain_seconds

    @overload
    def subscribe(self, events: type[E], callback: Handler[E], **options: Unpack[Options]) -> Subscription: ...
    @overload
    def subscribe(  # for protocols, which are no `type[E]`
        self, events: Callable[..., E], callback: Handler[E], **options: Unpack[Options]
    ) -> Subscription: ...
    @overload
    def subscribe(
        self, events: str | UnionType | tuple[Any, ...] | None, callback: Handler[Any], **options: Unpack[Options]
    ) -> Subscription: ...
    @overload
    def subscribe(
        self, events: type | UnionType | str | tuple[Any, ...] | None = ..., **options: Unpack[Options]
    ) -> Decorator: ...
    @overload
    def subscribe(self, events: F, /, **options: Unpack[Options]) -> F: ...
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
        weak: bool = False,
    ) -> Any:
        """Call `callback` for each of the `events`, and return its `Subscription`; or decorate a function.

        As a decorator (``@bus.subscribe``, ``@bus.subscribe(T)``) it returns the function as it was; `subscriptions` finds
        its subscription. The bus holds callbacks, and the objects of bound methods, until they are unsubscribed.

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
            thread: Run it in a worker thread: for callables that block. An ``async def`` runs in the event loop all the same.
            weak: Hold a method only as long as something else holds its object; then it is unsubscribed.

        Raises:
            BusStateError: The bus is closed.
            CallbackSignatureError: The callback takes other arguments than these.
            OptionError: An option has a value that it cannot have.
            OrderError: `before` or `after` names an unknown subscriber, or closes a cycle; or the name is in use.
        """
        check_options(stage, on_error, timeout)
        options: dict[str, Any] = {
            "stage": stage,
            "before": names("before", before),
            "after": names("after", after),
            "on_error": on_error,
            "timeout": timeout,
            "thread": flag("thread", thread),
            "gone": self._registry.gone.append if flag("weak", weak) else None,
        }
        if callback is not None:
            return self._subscribe(events, callback, name, options)
        check_no_callback_class(events)
        if events is not None and not is_selector(events):
            self._subscribe(None, events, name, options)
            return events

        def decorate(function: F) -> F:
            self._subscribe(events, function, name, options)
            return function

        return decorate

    def _subscribe(self, events: Events, callback: Any, name: str | None, options: dict[str, Any]) -> Subscription:
        self._check_changeable("subscribe")
        if isinstance(callback, Subscription):
            callback = callback.callback
        shape = shape_of(callback)
        if isinstance(events, type):
            check_event(callback, shape.form, events)
        chosen = selector(events_of(callback, shape.form, Any) if events is None else events)
        with self._registry.changing:
            subscription = Subscription(
                self._unsubscribe,
                callback,
                shape,
                chosen,
                name=self._registry.free_name(name, callback),
                **options,
            )
            self._registry.subscribe(subscription)
        return subscription

    def _unsubscribe(self, subscription: Subscription) -> None:
        self._check_thread()
        self._registry.remove(subscription)

    def subscriptions(self, callback: Callback | None = None) -> tuple[Subscription, ...]:
        """Return the subscriptions of `callback`, or all, as they were registered."""
        self._registry.remove_gone()
        every = tuple(self._registry.subscriptions.values())
        if callback is None:
            return every
        if inspect.ismethod(callback):  # an object is made for each access to a method, and these are equal
            return tuple(s for s in every if s.callback == callback)
        return tuple(s for s in every if s.callback is callback)

    def step(
        self,
        kind: StepKind,
        name: str,
        *,
        parent: str | None = None,
        attributes: Mapping[str, AttributeValue] | None = None,
    ) -> Step:
        """Run a piece of work as a step, ``async with bus.step(…)``: its start and its one end are published.

        Args:
            kind: The kind of step, and its event classes.
            name: Which one of its kind.
            parent: The id of the step it belongs to; by default the step that is running in this context.
            attributes: What is known of it at the start.

        Raises:
            OptionError: `kind` is no `StepKind`.
        """
        if not isinstance(kind, StepKind):
            raise OptionError(f"kind={shown(kind)}: a kind of step is needed, such as StepKind('download')")
        return Step(self, kind, name, parent, attributes)

    def threads(self) -> Threads:
        """Return an object that publishes from other threads.

        Raises:
            BusStateError: The bus is not open.
            WrongThreadError: This is another thread already; call this in the bus's own and pass the result on.
        """
        self._check_open("other threads can publish")
        return Threads(self, cast("int", self._thread), cast("EventLoopToken", self._token))

    def wants(self, event: type) -> bool:
        """Return whether an event of this class would reach anything: if not, it need not be built."""
        return not self.closed and self._registry.wants(event_class("wants", event))

    def stats(self) -> tuple[SubscriberStats, ...]:
        """Return the counts of every subscriber and observer so far. May be called in any thread."""
        return self._registry.stats()

    def explain(self, event: type) -> str:
        """Return, for people, what is called for events of this class, in which order and why."""
        return self._registry.explain(event_class("explain", event))

    def __reduce__(self) -> str:
        raise TypeError(
            f"the bus {self.name!r} can be neither copied nor sent to another process; make one there, and subscribe to that"
        )

    async def __aenter__(self) -> Self:
        if self._token is not None:
            raise BusStateError(f"the bus {self.name!r} was opened before; make a new one")
        self._token = current_token()
        self._thread = get_ident()
        self._registry.forget_plans()
        for observation in self._registry.observations.values():
            if isinstance(observation, Observation):
                observation.start(self._token)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            watching = [*self._registry.observations.values(), *self._leaving]
            for observation in watching:
                observation.buffer.end()
            observers = [each for each in watching if isinstance(each, Observation)]
            late = await _done(observers, self._drain_seconds)
            for observation in late:
                log(
                    logging.WARNING,
                    "observer %r was not done within %g s and is left behind",
                    observation.name,
                    self._drain_seconds,
                )
            self.closed = True  # only now: what observers publish while they are drained still reaches subscribers
            self._registry.forget_plans()
            for observation in late:
                observation.cancel()
            await _done([each for each in late if isinstance(each, TaskObservation)], CANCEL_SECONDS)


async def _done(observers: Sequence[Observation], seconds: float) -> list[Observation]:
    """Wait until all `observers` have processed their last events; return those that have not after so many `seconds`."""
    with anyio.move_on_after(seconds):
        for observer in observers:
            await observer.done.wait()
    return [observer for observer in observers if not observer.done.is_set()]
