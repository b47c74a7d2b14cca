"""What publishing an event of one class involves: computed once, and kept until a subscriber or observer changes."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import pairwise
from types import FunctionType, MethodType
from typing import Any

from phasebus.bus._blame import blame, forget_older_tracebacks
from phasebus.bus._calls import call_guarded
from phasebus.bus._checks import shown
from phasebus.bus._context import Context
from phasebus.bus._errors import CallbackTimeoutError, EventError
from phasebus.bus._events import PhaseEvent
from phasebus.bus._forms import Callback
from phasebus.bus._log import log
from phasebus.bus._outcome import Outcome
from phasebus.bus._publisher import Publisher
from phasebus.bus._returned import write_returned
from phasebus.bus._stats import SAMPLES
from phasebus.bus._step_events import CALLBACK, AttributeValue, StepFailed, StepFinished, StepStarted
from phasebus.bus._steps import Step
from phasebus.bus._subscription import Subscription
from phasebus.bus._view import View
from phasebus.bus._watcher import Watcher

ISOLATED = "%r failed, and was isolated"
"""Logged for the first error of a subscriber, and for each that no outcome has as the publish failed."""

NO_MAPPINGS = frozenset({bool, int, float, str, bytes, list, tuple, set})
"""Classes whose values need no closer look to know that they are no mappings."""


class Plan:
    """All that publishing an event of one class needs to know.

    Attributes:
        subscriptions: The subscribers, in the order they run.
        rows: The same, if awaiting each call is all there is to do, else None: the subscriber, what is called, and the
            author of what it writes, or None if it takes no context.
        observations: The observers that select the event.
        starts_step: Whether the event is the start of a step.
        ends_step: Whether it is the end of one.
        recorded: Whether the event is kept: there is a history, or a step starts or ends.
        watched: Whether there is more to a publish than its subscribers: observers, a history, a step that starts or ends.
        no_listeners: Whether there is nothing to call and nothing that watches.
        plain: The callbacks, if awaiting each with the event alone is all there is to a publish; else None.
        timed: The same, where there is also timing.
        owners: The subscribers of these callbacks, if they are several.
        only_call: The callback, if awaiting one is all there is to a publish, with a context, with timing or neither; else None.
        watched_call: The same, where the event is watched.
        author: The author of what either writes; None if it takes no context.
        durations: Where the durations of either are kept, in seconds; None unless that is asked for.
        needs_context: Whether any subscriber or observer takes a context.
        emits_callback_steps: Whether each call is published as a step of its own.
        times: When the calls of the latest publishes began and ended, other than an `only_call`; None unless that is asked for.
        empty_outcome: The outcome of a publish without values, errors, times and parent.
        completed: How many publishes have called every subscriber, and are not yet counted in their tallies. A float, as adding
            to one takes half the time: Python reuses the memory of floats.
        retired: Whether it is no longer in use, except by publishes that had begun before.
    """

    __slots__ = (
        "author",
        "completed",
        "durations",
        "emits_callback_steps",
        "empty_outcome",
        "ends_step",
        "needs_context",
        "no_listeners",
        "observations",
        "only_call",
        "owners",
        "plain",
        "recorded",
        "retired",
        "rows",
        "starts_step",
        "subscriptions",
        "timed",
        "times",
        "watched",
        "watched_call",
    )

    def __init__(
        self,
        event: type,
        subscriptions: tuple[Subscription, ...],
        observations: tuple[Watcher, ...],
        *,
        emits_callback_steps: bool,
        timing: bool,
        recorded: bool,
    ) -> None:
        self.subscriptions = subscriptions
        self.rows: tuple[tuple[Subscription, Callback, str | None], ...] | None = None
        if not emits_callback_steps and all(map(_is_awaited, subscriptions)):
            self.rows = tuple((s, s.call, None if s.takes_no_context else s.name) for s in subscriptions)
        self.observations = observations
        self.starts_step = issubclass(event, StepStarted)
        self.ends_step = issubclass(event, StepFinished | StepFailed)
        self.recorded = recorded or self.starts_step or self.ends_step
        self.watched = bool(observations) or self.recorded or emits_callback_steps
        self.needs_context = any(o.takes_context for o in observations) or not all(
            s.takes_no_context for s in subscriptions
        )
        self.emits_callback_steps = emits_callback_steps
        self.times: deque[list[float]] | None = deque(maxlen=SAMPLES) if timing else None
        self.completed = 0.0
        self.retired = False
        self.no_listeners = not (self.watched or subscriptions)
        self.owners: dict[Callback, Subscription] = {}
        self.only_call: Callback | None = None
        self.watched_call: Callback | None = None
        self.author: str | None = None
        self.durations: deque[float] | None = None
        calls: tuple[Callback, ...] | None = None
        if self.rows:
            first, call, author = self.rows[0]
            if len(subscriptions) == 1 and (author is None or not timing):
                self.author = author
                self.durations = first.tally.seconds if timing else None
                if self.watched:
                    self.watched_call = call
                else:
                    self.only_call = call
                    calls = (call,) if author is None else None
            elif not self.watched and all(map(_is_plain, subscriptions)):
                self.owners = {s.call: s for s in subscriptions}
                if len(self.owners) == len(subscriptions):  # else one callback is subscribed twice
                    calls = tuple(self.owners)
        self.plain = None if timing else calls
        self.timed = calls if timing else None
        self.empty_outcome = self.outcome(None)

    def outcome(self, parent: object) -> Outcome:
        """Return the outcome of a publish without values, errors and times."""
        outcome = Outcome()
        outcome.subscriptions, outcome.parent = self.subscriptions, parent
        outcome.returned = outcome.caught = outcome.ticks = None
        return outcome

    def crowded(self) -> bool:
        """Return whether the event loop has to turn for an observer."""
        for observation in self.observations:  # noqa: SIM110  # for each publish, and a generator takes longer
            if observation.buffer.until_turn <= 0:
                return True
        return False

    def new_context(self) -> Context | None:
        """Return the context of a publish that was given none: a new one if any subscriber or observer takes it."""
        return Context() if self.needs_context else None

    def owner(self, call: Callback) -> Subscription:
        """Return the subscriber of a callback that is `plain`, `timed` or the `only_call`."""
        return self.owners[call] if self.owners else self.subscriptions[0]

    def keep(
        self,
        values: dict[Subscription, Any] | None,
        call: Callback,
        value: Any,
        event: object,
        context: Context | View | None,
        view: View | None = None,
    ) -> dict[Subscription, Any]:
        """Return `values` with the `value` that `call` returned; a mapping is written to its `view`, or at once without one."""
        values = values or {}
        values[self.owner(call)] = value
        if type(value) not in NO_MAPPINGS and isinstance(value, Mapping):
            if view is None:
                self.write(value, call, event, context)
            else:
                write_returned(value, view.by, event, context, view)
        return values

    def write(self, value: Mapping[str, Any], call: Callback, event: object, context: Context | View | None) -> None:
        """Write a mapping that a callback returned to the context, and commit it."""
        view = write_returned(value, self.owner(call).name, event, context, None)
        if view is not None:
            view.commit()

    async def call_in_step(
        self,
        bus: Publisher,
        subscription: Subscription,
        event: object,
        context: Context | View | None,
        view: View | None,
    ) -> tuple[Any, View | None]:
        """Call a subscriber within a step of its own: observers see its start, its end, and what it changed."""
        attributes: dict[str, AttributeValue] = {"event": type(event).__name__}
        if isinstance(event, PhaseEvent):
            attributes["phase"] = event.phase
        async with Step(bus, CALLBACK, subscription.name, attributes=attributes) as step:
            value = await call_guarded(subscription, event, view)
            if isinstance(value, Mapping):
                view = write_returned(value, subscription.name, event, context, view)
            if view is not None and view.key is not None:
                step.attributes["changed"] = ",".join(view.written())
                view.commit()
        return value, view

    def failed(
        self,
        subscription: Subscription,
        event: object,
        error: BaseException,
        isolated: Mapping[Subscription, Exception] | None = None,
    ) -> None:
        """Count a publish that `error` ended at `subscription`, and put its name on it; log what no outcome has now."""
        for called in self.subscriptions[: self.subscriptions.index(subscription) + 1]:
            called.tally.calls += 1
        self._record_error(subscription, event, error)
        for earlier, lost in (isolated or {}).items():
            if earlier.tally.errors > 1:  # else it was logged
                log(logging.WARNING, ISOLATED, earlier.name, error=lost)

    def isolate(self, subscription: Subscription, event: object, error: Exception) -> None:
        """Count an `error` that does not end the publish, and put the subscriber's name on it; log the first one."""
        self._record_error(subscription, event, error, isolated=True)
        if subscription.tally.errors == 1:
            log(logging.WARNING, ISOLATED, subscription.name, error=error)

    def _record_error(
        self, subscription: Subscription, event: object, error: BaseException, *, isolated: bool = False
    ) -> None:
        """Count `error` as the subscriber's, and put the names of the subscriber and the phase on it."""
        during = f"phase {event.phase!r}" if isinstance(event, PhaseEvent) else type(event).__name__
        note = f"raised by the callback {subscription.name!r} during {during}"
        if isolated and note in getattr(error, "__notes__", ()):
            forget_older_tracebacks(error)
        if blame(error, note):
            subscription.tally.errors += 1
            subscription.tally.timeouts += isinstance(error, CallbackTimeoutError)

    def seconds(self) -> Iterator[tuple[Subscription, float]]:
        """Return how long each subscriber took in the latest publishes."""
        for ticks in list(self.times or ()):
            for subscription, (start, end) in zip(self.subscriptions, pairwise(ticks), strict=False):
                yield subscription, end - start

    def count(self) -> None:
        """Add the counts to the tallies of the subscribers: the plan is not in use, or soon will not be."""
        completed, self.completed = int(self.completed), 0.0
        for subscription in self.subscriptions:
            subscription.tally.calls += completed
        for subscription, seconds in self.seconds():
            subscription.tally.seconds.append(seconds)
        if self.times:
            self.times.clear()


def check_context(context: object) -> None:
    """Raise EventError unless `context` is one."""
    if not isinstance(context, Context):  # a `View` is registered as one
        raise EventError(
            f"{shown(context)} is no context; publish with Context({{…}}), which remembers who changed what"
        )


def _is_awaited(subscription: Subscription) -> bool:
    return subscription.awaited and subscription.on_error == "raise" and not subscription.guarded


def _is_plain(subscription: Subscription) -> bool:
    return _is_awaited(subscription) and subscription.takes_no_context and type(subscription.call) in _SAFE_KEYS


_SAFE_KEYS = frozenset({FunctionType, MethodType, partial})
"""Classes of callbacks that are hashed and compared without running code of their own, which may fail."""
