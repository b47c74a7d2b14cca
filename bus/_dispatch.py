"""The heart of the bus: how one event reaches its subscribers.

Everything that can be decided beforehand is decided when the `Plan` of an event's class is made. One more await for each
publish costs as much as a subscriber, and the iterator of a loop a third of that. So what is published most often is written out
in `publish`: to callbacks that are awaited with the event alone, one or several, with timing or without; and to one callback
that is awaited with a context. Other callbacks that are awaited have a method of their own, and so have those of all other sorts.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextvars import copy_context
from inspect import isawaitable
from threading import get_ident
from typing import Any

from phasebus.bus._calls import call_guarded
from phasebus.bus._context import Context
from phasebus.bus._errors import WrongThreadError
from phasebus.bus._handling import CAUSE, EVENT, RUNNING, Handling, check_depth, handling, running_cause
from phasebus.bus._outcome import Outcome
from phasebus.bus._past import Past
from phasebus.bus._plan import NO_MAPPINGS, Plan, check_context
from phasebus.bus._returned import write_returned
from phasebus.bus._subscription import Subscription
from phasebus.bus._view import ALONE, Mark, View, references, view_of
from phasebus.bus._watcher import Watcher

_outer, _enter = handling.get, handling.set
_leave = handling.reset
"""It raises ValueError where a publish is not ended by its own task: a garbage collector closes it, or its loop has ended."""
clock = time.perf_counter
now = time.time
COMMITTED, MANY = Mark.COMMITTED, Mark.MANY


class Dispatcher:
    """The publishing side of a bus.

    Args:
        name: Its name in messages.
        history: How many of the latest events are kept.
        max_depth: How deep publishes may be nested in one another.
    """

    def __init__(self, name: str, history: int, max_depth: int) -> None:
        self.name = name
        self.closed = False
        self._plans: dict[type, Plan] = {}
        self._max_depth = max_depth
        self._past = Past(history)
        self._thread: int | None = None  # that of the event loop in which the bus was opened

    async def publish(self, event: object, context: Context | View | None = None) -> Outcome:  # noqa: C901  # calls cost
        """Deliver `event` to the observers, and to each subscriber in turn; return the outcome.

        It lets the event loop turn when subscribers do, and once for every half of an observer's buffer it fills. A loop
        that publishes to nothing else runs on: give it a ``checkpoint()`` where it has to be cancellable.

        Args:
            event: An object of any class.
            context: What the subscribers share; a new one if there is none.

        Raises:
            Exception: What a subscriber raised, with a note that names the subscriber.
            BusStateError: The bus is closed, or has observers and is not open.
            EventError: `event` is a class, or `context` is not a `Context`.
            NestingError: Publishes have caused one another too deeply.
            WrongThreadError: The bus is open in another thread.
        """
        try:
            plan = self._plans[type(event)]
        except KeyError:
            plan = self._plan(event)
        if context is not None and context.__class__ is not Context:  # `type(context)` is a call
            check_context(context)
        outer = _outer()
        if plan.no_listeners:
            return plan.empty_outcome if outer is None else plan.outcome(outer[EVENT])
        if self._thread is not None and self._thread != get_ident():
            self._check_thread()
        here: Handling = [event, None, True]
        if outer is not None:
            here[CAUSE] = running_cause(outer)
            check_depth(event, here[CAUSE], self._max_depth)
        values: dict[Subscription, Any] | None = None
        call = plan.only_call
        if plan.plain is not None:  # one or several callbacks, and nothing but to await them
            token = _enter(here)
            try:
                if call is not None:
                    value = await call(event)
                    if value is not None:
                        values = {plan.subscriptions[0]: value}
                        if type(value) not in NO_MAPPINGS and isinstance(value, Mapping):
                            plan.write(value, call, event, context)
                else:
                    for call in plan.plain:
                        value = await call(event)
                        if value is not None:
                            values = values or {}
                            values[plan.owners[call]] = value
                            if type(value) not in NO_MAPPINGS and isinstance(value, Mapping):
                                plan.write(value, call, event, context)
                plan.completed += 1.0
            except BaseException as error:
                plan.failed(plan.owner(call), event, error)  # type: ignore[arg-type]  # one was called
                raise
            finally:
                here[RUNNING] = False
                try:  # noqa: SIM105  # which takes longer
                    _leave(token)
                except ValueError:  # see `_leave`
                    pass
                if plan.retired:
                    plan.count()
            if values is None and outer is None:
                return plan.empty_outcome
            outcome = Outcome()
            outcome.subscriptions = plan.subscriptions
            outcome.returned = values
            outcome.caught = outcome.ticks = None
            outcome.parent = None if outer is None else outer[EVENT]
            return outcome

        if call is None and plan.timed is None:  # whatever takes longer than one more await
            if plan.watched:
                if plan.crowded():
                    plan = await self._let_observers_run(plan, event)
                context = plan.new_context() if context is None else context
                for watcher in self._announce(plan, event, context):
                    await watcher.put_when_there_is_room(event, context)
            elif context is None:
                context = plan.new_context()
            if plan.rows is None:
                return await self._publish_general(plan, event, context, here, outer)
            return await self._publish_awaited(plan, event, context, here, outer)

        ticks: Sequence[float] | None = None
        view = None
        token = _enter(here)
        try:
            if plan.author is not None:  # one callback, with a context
                if context is None:
                    context = Context()
                view = View()
                view.base = context
                view.by = plan.author
                view.event = event
                view.key = None
                value = await call(event, view)  # type: ignore[misc]  # an author is that of an `only_call`
                if value is not None:
                    values = plan.keep(values, call, value, event, context, view)  # type: ignore[arg-type]
                key: Any = view.key
                if key is None:
                    view.key = COMMITTED
                elif key is MANY or context.__class__ is not Context or context.rules:
                    view.commit()
                else:  # one key without rules, as in most callbacks: what `commit` does, without the calls
                    context.data[key] = value = view.value
                    log = context.log
                    log.append((key, value, view.by, event, now()))
                    view.key = COMMITTED
                    if len(log) >= context.longest:
                        context.forget()
            elif call is not None:  # one, with timing
                began = clock()
                value = await call(event)
                if value is not None:
                    values = plan.keep(values, call, value, event, context)
                ended = clock()
                ticks = (began, ended)
                plan.durations.append(ended - began)  # type: ignore[union-attr]  # as it is timed
            else:  # several, with timing
                ticks = ends = [clock()]
                try:
                    for call in plan.timed:  # type: ignore[union-attr]
                        value = await call(event)
                        if value is not None:
                            values = plan.keep(values, call, value, event, context)
                        ends.append(clock())
                finally:
                    plan.times.append(ends)  # type: ignore[union-attr]
            plan.completed += 1.0
        except BaseException as error:
            if view is not None:
                view.close()
            plan.failed(plan.owner(call), event, error)  # type: ignore[arg-type]
            raise
        finally:
            here[RUNNING] = False
            try:  # noqa: SIM105
                _leave(token)
            except ValueError:  # see `_leave`
                pass
            if plan.retired:
                plan.count()
        if values is None and ticks is None and outer is None:
            return plan.empty_outcome
        outcome = Outcome()
        outcome.subscriptions = plan.subscriptions
        outcome.returned = values
        outcome.caught = None
        outcome.ticks = ticks
        outcome.parent = None if outer is None else outer[EVENT]
        return outcome

    publish.__qualname__ = "Bus.publish"  # as the warning of a publish that was not awaited names it

    async def _publish_awaited(  # noqa: C901  # as long as `publish`, and to be read beside it
        self, plan: Plan, event: object, context: Any, here: Handling, outer: Handling | None
    ) -> Outcome:
        """Deliver `event` where awaiting the subscribers is all there is to do for them, and `publish` does not do it itself.

        They are several, and some take a context; or there is timing as well as a context; or the event is watched.
        """
        values: dict[Subscription, Any] | None = None
        view = None
        nested = type(context) is not Context
        ticks = None if plan.times is None else [clock()]
        token = _enter(here)
        try:
            for subscription, call, by in plan.rows or ():
                if by is None:
                    view = None
                    value = await call(event)
                else:
                    if view is None:
                        view = View()
                        view.base = context
                        view.event = event
                        view.key = None
                    view.by = by
                    value = await call(event, view)
                if value is not None:
                    values = values or {}
                    values[subscription] = value
                    if type(value) not in NO_MAPPINGS and isinstance(value, Mapping):
                        view = write_returned(value, subscription.name, event, context, view)
                if view is not None:
                    key: Any = view.key
                    if key is None:
                        pass
                    elif key is MANY or nested or context.rules:
                        view.commit()
                    else:  # as in `publish`
                        context.data[key] = value = view.value
                        log = context.log
                        log.append((key, value, view.by, event, now()))
                        if len(log) >= context.longest:
                            context.forget()
                    if references(view) != ALONE:  # the callback keeps it, and may write later
                        view.key = COMMITTED
                        view = None
                    elif key is not None:
                        view.key = None
                if ticks is not None:
                    ticks.append(clock())
            plan.completed += 1.0
        except BaseException as error:
            if view is not None:
                view.close()
            plan.failed(subscription, event, error)
            raise
        finally:
            here[RUNNING] = False
            try:  # noqa: SIM105
                _leave(token)
            except ValueError:  # see `_leave`
                pass
            if ticks is not None and plan.times is not None:
                plan.times.append(ticks)
            if plan.retired:
                plan.count()
        if values is None and ticks is None and outer is None:
            return plan.empty_outcome
        outcome = plan.outcome(None if outer is None else outer[EVENT])
        outcome.returned, outcome.ticks = values, ticks
        return outcome

    async def _publish_general(  # noqa: C901  # as long as `publish`, and to be read beside it
        self, plan: Plan, event: object, context: Any, here: Handling, outer: Handling | None
    ) -> Outcome:
        """Deliver `event` where a subscriber needs more than an await: the rest of `publish`.

        Such a subscriber is synchronous, isolated, in a thread, has a timeout or retries, or is published as a step.
        """
        values: dict[Subscription, Any] = {}
        errors: dict[Subscription, Exception] = {}
        ticks = None
        token = _enter(here)
        try:
            if plan.times is not None:
                ticks = [clock()]
            for subscription in plan.subscriptions:
                call = subscription.call
                view = None
                try:
                    if not subscription.takes_no_context:
                        view = view_of(context, subscription.name, event)
                    if plan.emits_callback_steps:
                        value, view = await plan.call_in_step(self, subscription, event, context, view)
                    elif subscription.guarded:
                        value = await call_guarded(subscription, event, view)
                    else:
                        value = call(event) if view is None else call(event, view)
                        if value is not None and isawaitable(value):
                            value = await value
                    if value is not None:
                        if isinstance(value, Mapping) and not plan.emits_callback_steps:
                            view = write_returned(value, subscription.name, event, context, view)
                        values[subscription] = value
                    if view is not None:
                        view.commit()
                except BaseException as error:
                    if view is not None:
                        view.close()
                    values.pop(subscription, None)
                    if subscription.on_error != "isolate" or not isinstance(error, Exception):
                        plan.failed(subscription, event, error, isolated=errors)
                        raise
                    plan.isolate(subscription, event, error)
                    errors[subscription] = error
                if ticks is not None:
                    ticks.append(clock())
            plan.completed += 1.0
        finally:
            here[RUNNING] = False
            try:  # noqa: SIM105
                _leave(token)
            except ValueError:  # see `_leave`
                pass
            if ticks is not None and plan.times is not None:
                plan.times.append(ticks)
            if plan.retired:
                plan.count()
        if not values and not errors and ticks is None and outer is None:
            return plan.empty_outcome
        outcome = plan.outcome(None if outer is None else outer[EVENT])
        outcome.returned, outcome.caught, outcome.ticks = values or None, errors or None, ticks
        return outcome

    async def _let_observers_run(self, plan: Plan, event: object) -> Plan:
        """Let the event loop turn for the observers whose buffers were half filled; return the plan that is then in use."""
        for observation in plan.observations:
            if observation.buffer.until_turn <= 0:
                await observation.buffer.turns()
        return self._plan(event) if plan.retired and not self.closed else plan

    def _announce(self, plan: Plan, event: object, context: Context | View | None) -> list[Watcher]:
        """Put an event into the past and the observers' buffers; return the observers that the publisher has to wait for."""
        if plan.recorded:
            self._past.add(event, starts_step=plan.starts_step, ends_step=plan.ends_step)
        full: list[Watcher] = []
        for observation in plan.observations:
            if observation.thinning is not None and not observation.thinning.passes(event):
                continue
            if observation.blocks and observation.buffer.full:
                full.append(observation)
            else:
                observation.put((event, context, copy_context()))  # a copy each: it can be entered only once
        return full

    def _plan(self, event: object) -> Plan:
        raise NotImplementedError

    def _check_thread(self) -> None:
        if self._thread is not None and get_ident() != self._thread:
            raise WrongThreadError(
                f"the bus {self.name!r} belongs to another thread (and its event loop); "
                "from here, publish through bus.threads(), taken while the bus is open"
            )
