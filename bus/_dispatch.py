"""The heart of the bus: how one event reaches its subscribers.

Everything that can be decided beforehand is decided when the `Plan` of an event's class is made. `Bus.publish` runs the
plainest plans itself; `dispatch` here is the general case. Both are plain loops.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from inspect import isawaitable
from time import perf_counter
from typing import TYPE_CHECKING, Any

from phasebus.bus._context import Context
from phasebus.bus._errors import CallbackTimeoutError
from phasebus.bus._events import PhaseEvent
from phasebus.bus._forms import Callback, Form
from phasebus.bus._observers import Observation
from phasebus.bus._outcome import Outcome, raise_together
from phasebus.bus._policies import call_guarded
from phasebus.bus._steps import CALLBACK, AttributeValue, run_step
from phasebus.bus._streams import Stream
from phasebus.bus._subscription import Subscription
from phasebus.bus._view import View

if TYPE_CHECKING:
    from phasebus.bus._bus import Bus

publishing: ContextVar[Any] = ContextVar("phasebus_publishing")
"""The event being handled in this context: the event itself, or a `Nested` where its publish was caused by another."""


@dataclass(frozen=True, slots=True)
class Nested:
    """An event that was published while another one was being handled."""

    event: object
    parent: Any

    @property
    def depth(self) -> int:
        """How many publishes it lies inside of."""
        return 1 + (self.parent.depth if isinstance(self.parent, Nested) else 0)

    def chain(self) -> str:
        """Return the classes of the events that led here, first cause first."""
        before = self.parent.chain() if isinstance(self.parent, Nested) else type(self.parent).__name__
        return f"{before} > {type(self.event).__name__}"


class Plan:
    """All that publishing an event of one class needs to know, found out once.

    Attributes:
        subscriptions: The subscribers, in the order they run.
        plain: The callbacks themselves, if awaiting each with the event is all there is to do; else None.
        narrated: Whether each call is told to the observers as a step of its own.
        observations: The observers that want the event.
        quiet: The outcome of a publish to which nobody had anything to say.
        completed: How many publishes have called every subscriber.
    """

    __slots__ = ("completed", "narrated", "observations", "plain", "quiet", "subscriptions", "timing")

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
        self.observations = observations
        self.narrated = narrated
        self.timing = timing
        self.completed = 0
        self.quiet = Outcome(subscriptions, {}, {}, None, None)
        self.plain: tuple[Callback, ...] | None = None
        if all(map(_is_plain, subscriptions)) and not (narrated or timing or recorded or observations):
            self.plain = tuple(s.callback for s in subscriptions)

    def failed(self, index: int, event: object, error: BaseException) -> None:
        """Count a publish that ended with the subscriber at `index`, and put its name on `error`."""
        for subscription in self.subscriptions[: index + 1]:
            subscription.tally.calls += 1
        self.count_error(index, error)
        _annotate(error, self.subscriptions[index], event)

    def keep(
        self, values: dict[int, Any], index: int, value: Any, event: object, context: Context | View | None
    ) -> None:
        """Keep what the subscriber at `index` returned, and merge it into the context if it is a mapping."""
        values[index] = value
        if context is not None:
            _commit(self.subscriptions[index], event, context, None, value)

    def count_error(self, index: int, error: BaseException) -> None:
        """Count `error` as the subscriber's at `index`."""
        if isinstance(error, Exception):
            tally = self.subscriptions[index].tally
            tally.errors += 1
            tally.timeouts += isinstance(error, CallbackTimeoutError)

    def settle(self) -> None:
        """Hand the counts on to the subscribers: the plan is going to be forgotten, or they are being read."""
        completed, self.completed = self.completed, 0
        for subscription in self.subscriptions:
            subscription.tally.calls += completed


def _is_plain(subscription: Subscription) -> bool:
    return (
        subscription.shape.form is Form.EVENT
        and subscription.shape.awaited
        and subscription.on_error == "raise"
        and not subscription.guarded
    )


async def dispatch(bus: Bus, plan: Plan, event: object, context: Context | View, parent: object) -> Outcome:
    """Call each subscriber of `plan` in turn; commit what it wrote when it has succeeded.

    Raises:
        Exception: What a subscriber raised, unless it was subscribed to be isolated; with what was isolated before it,
            as an ExceptionGroup.
    """
    values: dict[int, Any] = {}
    errors: dict[int, Exception] = {}
    ticks = [perf_counter()] if plan.timing else None
    for index, subscription in enumerate(plan.subscriptions):
        view = None if subscription.blind else View(context, subscription.name, event)
        try:
            if plan.narrated:
                value = await _narrated(bus, subscription, event, context, view)
            else:
                if subscription.guarded:
                    value = await call_guarded(subscription, event, view)
                else:
                    value = subscription.call(event) if view is None else subscription.call(event, view)
                    if value is not None and isawaitable(value):
                        value = await value
                if value is not None or (view is not None and view.writes is not None):
                    _commit(subscription, event, context, view, value)
        except BaseException as error:
            if view is not None:
                view.close()
            if subscription.on_error == "isolate" and isinstance(error, Exception):
                errors[index] = error
                plan.count_error(index, error)
            else:
                plan.failed(index, event, error)
                if errors and isinstance(error, Exception):
                    raise_together((*errors.values(), error))
                raise
        else:
            if value is not None:
                values[index] = value
            if view is not None:
                view.state = "committed"
        if ticks is not None:
            now = perf_counter()
            subscription.tally.seconds.append(now - ticks[-1])
            ticks.append(now)
    plan.completed += 1
    if values or errors or ticks or parent is not None:
        return Outcome(plan.subscriptions, values, errors, ticks, parent)
    return plan.quiet


async def _narrated(
    bus: Bus, subscription: Subscription, event: object, context: Context | View, view: View | None
) -> Any:
    """Call a subscriber within a step of its own, so that observers see it begin and end, and what it changed."""
    attributes: dict[str, AttributeValue] = {"event": type(event).__name__}
    if isinstance(event, PhaseEvent):
        attributes["phase"] = event.phase
    async with run_step(bus, CALLBACK, subscription.name, None, attributes) as step:
        value = await call_guarded(subscription, event, view)
        if changed := _commit(subscription, event, context, view, value):
            step.attributes["changed"] = ",".join(changed)
    return value


def _commit(
    subscription: Subscription, event: object, context: Context | View, view: View | None, value: object
) -> tuple[str, ...]:
    """Commit what a subscriber wrote and returned; return the keys."""
    if value is not None and isinstance(value, Mapping):
        view = view or View(context, subscription.name, event)
        view.update(value)
    if view is None or view.writes is None:
        return ()
    changed = tuple(view.writes)
    view.commit()
    return changed


def _annotate(error: BaseException, subscription: Subscription, event: object) -> None:
    """Put the names of the callback and of the event on an error that is about to reach the caller."""
    if isinstance(error, Exception):
        during = f"phase {event.phase!r}" if isinstance(event, PhaseEvent) else type(event).__name__
        error.add_note(f"raised by the callback {subscription.name!r} during {during}")


def current_event() -> Any:
    """Return the event that is being handled in this context, or None."""
    event = publishing.get(None)
    return event.event if isinstance(event, Nested) else event
