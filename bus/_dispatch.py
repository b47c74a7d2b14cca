"""The heart of the bus: how one event reaches its subscribers.

Everything that can be decided beforehand is decided when the `Plan` of an event's class is made; what is left are two
plain loops. They are written for speed: what costs something is entered only where something asked for it.
"""

from __future__ import annotations

import time
from collections import deque
from contextvars import copy_context
from inspect import isawaitable
from threading import Thread, current_thread
from typing import Any

from phasebus.bus._context import Context
from phasebus.bus._errors import NestingError, WrongThreadError
from phasebus.bus._observers import Observation
from phasebus.bus._outcome import Outcome, raise_together
from phasebus.bus._plan import Plan, merged
from phasebus.bus._policies import call_guarded
from phasebus.bus._streams import Stream
from phasebus.bus._subscription import Subscription
from phasebus.bus._trail import NOBODYS, Nested, Trail, event_of, own_trail, passing_trail, trail
from phasebus.bus._view import Mark, View

_here = trail.get
clock = time.perf_counter
now = time.time
MANY, COMMITTED = Mark.MANY, Mark.COMMITTED


class Dispatcher:
    """The publishing side of a bus.

    Args:
        name: The name it is known by in messages.
        history: How many of the latest events are kept.
        max_depth: How deep publishes may be nested in one another.
    """

    def __init__(self, name: str, history: int, max_depth: int) -> None:
        self.name = name
        self._plans: dict[type, Plan] = {}
        self._max_depth = max_depth
        self._history: deque[tuple[object, object, int]] | None = deque(maxlen=history) if history else None
        self._thread: Thread | None = None

    async def publish(self, event: object, context: Context | View | None = None) -> Outcome:  # noqa: C901  # calls cost
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
        if plan.deaf:
            return plan.quiet
        try:
            here = _here(NOBODYS)
            mine = here.thread is self._thread and id(here.tasks[here.loop]) == here.task
        except (LookupError, RuntimeError):  # no such task in this thread
            mine = False
        if not mine:
            here = self._trail(here)
        outer = here.top
        values: dict[Subscription, Any] | None = None
        if outer is None and plan.plain is not None:
            here.top = event
            try:
                for call in plan.plain:
                    value = await call(event)
                    if value is not None:
                        values = plan.keep(values, call, value, event, context)
            except BaseException as error:
                plan.failed(plan.subscription(call), event, error)
                raise
            finally:
                here.top = None
            plan.completed += 1
            return plan.quiet if values is None else plan.outcome(values)

        shared: Any = Context() if context is None and plan.shared else context
        simple = shared.__class__ is Context  # and not the view of a callback that publishes within its transaction
        token = parent = errors = ticks = None
        if outer is None:
            here.top = top = event
        else:
            top = self._nested(event, outer)
            parent = event_of(outer)
            token = trail.set(passing_trail(top))
        try:
            if plan.watched:
                for observation in self._announce(plan, event, parent, top, shared):
                    await observation.buffer.room()
                    observation.buffer.put((top, shared, copy_context()))
            if plan.times is not None:
                ticks = [clock()]
                plan.times.append(ticks)
            for subscription, call, direct in plan.rows:
                view = None
                try:
                    if not subscription.blind:
                        view = View()
                        view.base = shared
                        view.by = subscription.name
                        view.event = event
                        view.key = None
                    if direct:
                        value = await (call(event) if view is None else call(event, view))
                    elif plan.narrated:
                        value, view = await plan.narrate(self, subscription, event, shared, view)
                    elif subscription.guarded:
                        value = await call_guarded(subscription, event, view)
                    else:
                        value = call(event) if view is None else call(event, view)
                        if value is not None and isawaitable(value):
                            value = await value
                    if value is not None:
                        if not plan.narrated:
                            view = merged(value, subscription, event, shared, view)
                        values = values or {}
                        values[subscription] = value
                    if view is not None:
                        if view.key is None or view.key is COMMITTED:
                            view.key = COMMITTED
                        elif view.key is MANY or not simple or shared.rules:
                            view.commit()
                        else:  # one key without rules, as in most callbacks: what `commit` does, without the calls
                            shared.data[view.key] = view.value
                            shared.log.append((view.key, view.value, view.by, event, now()))
                            view.key = COMMITTED
                except BaseException as error:
                    if view is not None:
                        view.close()
                    if values is not None:
                        values.pop(subscription, None)
                    if subscription.on_error != "isolate" or not isinstance(error, Exception):
                        plan.failed(subscription, event, error)
                        if errors and isinstance(error, Exception):
                            raise_together((*errors.values(), error))
                        raise
                    plan.blame(subscription, event, error)
                    errors = errors or {}
                    errors[subscription] = error
                if ticks is not None:
                    ticks.append(clock())
        finally:
            if token is None:
                here.top = None
            else:
                trail.reset(token)
        plan.completed += 1
        if values is None and errors is None and ticks is None and parent is None:
            return plan.quiet
        outcome = Outcome()
        outcome.subscriptions = plan.subscriptions
        outcome.values = values
        outcome.caught = errors
        outcome.ticks = ticks
        outcome.parent = parent
        return outcome

    def _nested(self, event: object, outer: object) -> Nested:
        """Return `event` as one that was published while `outer` was being handled."""
        nested = Nested(event, outer)
        if nested.depth > self._max_depth:
            raise NestingError(
                f"publishes have caused one another {nested.depth} deep, and {self._max_depth} are allowed: "
                f"{nested.chain()}; break the circle, or make the bus with a larger max_depth"
            )
        return nested

    def _announce(
        self, plan: Plan, event: object, parent: object, top: object, context: Context | View | None
    ) -> list[Observation | Stream]:
        """Tell the history and the observers of an event; return the observers that have to be waited for."""
        if self._history is not None:
            self._history.append((event, parent, time.time_ns()))
        waited_for: list[Observation | Stream] = []
        for observation in plan.observations:
            if observation.overflow == "block" and observation.buffer.full:
                waited_for.append(observation)
            else:
                observation.buffer.put((top, context, copy_context()))  # a copy each: it can be entered only once
        return waited_for

    def _plan(self, event: type) -> Plan:
        raise NotImplementedError

    def _trail(self, inherited: Trail) -> Trail:
        """Return the trail that a publish here begins with; the first publisher's thread becomes the bus's own."""
        thread = current_thread()
        if thread is not self._thread:
            self._check_thread()
            self._thread = thread
        return own_trail(inherited, thread)

    def _check_thread(self) -> None:
        if self._thread is not None and current_thread() is not self._thread:
            raise WrongThreadError(
                f"the bus {self.name!r} belongs to another thread (and its event loop); "
                "from here, publish through bus.threads(), taken while the bus is open"
            )
