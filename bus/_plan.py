"""What publishing an event of one class comes to: found out once, and kept."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from phasebus.bus._context import Context
from phasebus.bus._errors import CallbackTimeoutError
from phasebus.bus._events import PhaseEvent
from phasebus.bus._forms import Callback
from phasebus.bus._observers import Observation
from phasebus.bus._outcome import Outcome
from phasebus.bus._policies import call_guarded
from phasebus.bus._stats import SAMPLES
from phasebus.bus._steps import CALLBACK, AttributeValue, run_step
from phasebus.bus._streams import Stream
from phasebus.bus._subscription import Subscription
from phasebus.bus._view import View

if TYPE_CHECKING:
    from phasebus.bus._dispatch import Dispatcher


class Plan:
    """All that publishing an event of one class needs to know.

    Attributes:
        subscriptions: The subscribers, in the order they run.
        rows: The same: the subscriber, what is called, and whether awaiting that is all there is to do.
        observations: The observers that want the event.
        watched: Whether there is more to a publish than its subscribers: observers, or a history.
        plain: The callbacks themselves, if awaiting each with the event is all there is to do; else None.
        shared: Whether anybody takes a context.
        narrated: Whether each call is told to the observers as a step of its own.
        times: When the calls of the latest publishes began and ended; None unless that is asked for.
        deaf: Whether nobody is there to hear the event at all.
        quiet: The outcome of a publish to which nobody had anything to say.
        completed: How many publishes have called every subscriber.
    """

    __slots__ = (
        "completed",
        "deaf",
        "narrated",
        "observations",
        "plain",
        "quiet",
        "rows",
        "shared",
        "subscriptions",
        "times",
        "watched",
    )

    def __init__(
        self,
        subscriptions: tuple[Subscription, ...],
        observations: tuple[Observation | Stream, ...],
        *,
        narrated: bool,
        timing: bool,
        recorded: bool,
    ) -> None:
        self.subscriptions = subscriptions
        self.rows = tuple((s, s.call, s.awaited and not s.guarded and not narrated) for s in subscriptions)
        self.observations = observations
        self.watched = bool(observations) or recorded or narrated
        self.shared = any(o.takes_context for o in observations) or not all(s.blind for s in subscriptions)
        self.narrated = narrated
        self.deaf = not (subscriptions or self.watched)
        self.times: deque[list[float]] | None = deque(maxlen=SAMPLES) if timing else None
        self.completed = 0
        self.quiet = self.outcome(None)
        self.plain: tuple[Callback, ...] | None = None
        calls = tuple(subscription.call for subscription in subscriptions)
        if not (self.watched or timing) and all(map(_is_plain, subscriptions)) and len({*map(id, calls)}) == len(calls):
            self.plain = calls

    def subscription(self, call: Callback) -> Subscription:
        """Return whose the `plain` callback `call` is."""
        return next(s for s in self.subscriptions if s.call is call)

    def keep(
        self,
        values: dict[Subscription, Any] | None,
        call: Callback,
        value: object,
        event: object,
        context: Context | View | None,
    ) -> dict[Subscription, Any]:
        """Add what a `plain` callback returned to `values`, and to the context if it is a mapping."""
        subscription = self.subscription(call)
        view = merged(value, subscription, event, context, None)
        if view is not None:
            view.commit()
        values = {} if values is None else values
        values[subscription] = value
        return values

    def outcome(self, values: dict[Subscription, Any] | None) -> Outcome:
        """Return the outcome of a publish without errors, times and parent."""
        outcome = Outcome()
        outcome.subscriptions, outcome.values = self.subscriptions, values
        outcome.caught = outcome.ticks = outcome.parent = None
        return outcome

    async def narrate(
        self,
        bus: Dispatcher,
        subscription: Subscription,
        event: object,
        context: Context | View | None,
        view: View | None,
    ) -> tuple[Any, View | None]:
        """Call a subscriber within a step of its own, so that observers see it begin and end, and what it changed."""
        attributes: dict[str, AttributeValue] = {"event": type(event).__name__}
        if isinstance(event, PhaseEvent):
            attributes["phase"] = event.phase
        async with run_step(bus, CALLBACK, subscription.name, None, attributes) as step:
            value = await call_guarded(subscription, event, view)
            view = merged(value, subscription, event, context, view)
            if view is not None and view.key is not None:
                step.attributes["changed"] = ",".join(view.written())
                view.commit()
        return value, view

    def failed(self, subscription: Subscription, event: object, error: BaseException) -> None:
        """Count a publish that `error` ended at `subscription`, and put its name on it."""
        for called in self.subscriptions[: self.subscriptions.index(subscription) + 1]:
            called.tally.calls += 1
        self.blame(subscription, event, error)

    def blame(self, subscription: Subscription, event: object, error: BaseException) -> None:
        """Count `error` as the subscriber's, and put the names of both on it."""
        if isinstance(error, Exception | SystemExit):
            subscription.tally.errors += 1
            subscription.tally.timeouts += isinstance(error, CallbackTimeoutError)
            during = f"phase {event.phase!r}" if isinstance(event, PhaseEvent) else type(event).__name__
            error.add_note(f"raised by the callback {subscription.name!r} during {during}")

    def seconds(self) -> Iterator[tuple[Subscription, float]]:
        """Return how long each subscriber took in the latest publishes."""
        for ticks in list(self.times or ()):
            for subscription, (start, end) in zip(self.subscriptions, pairwise(list(ticks)), strict=False):
                yield subscription, end - start

    def settle(self) -> None:
        """Hand the counts on to the subscribers: the plan is going to be forgotten."""
        completed, self.completed = self.completed, 0
        for subscription in self.subscriptions:
            subscription.tally.calls += completed
        for subscription, seconds in self.seconds():
            subscription.tally.seconds.append(seconds)


def _is_plain(subscription: Subscription) -> bool:
    return subscription.blind and subscription.awaited and subscription.on_error == "raise" and not subscription.guarded


def merged(
    value: object, subscription: Subscription, event: object, context: Context | View | None, view: View | None
) -> View | None:
    """Write what a subscriber returned, if it is a mapping, to its view; return the view, a new one if need be."""
    if not isinstance(value, Mapping) or context is None:
        return view
    if view is None:
        view = View()
        view.base, view.by, view.event, view.key = context, subscription.name, event, None
    view.update(value)
    return view
