"""The heart of the bus: how one event reaches its subscribers.

Everything that can be decided beforehand is decided when the `Plan` of an event's class is made. One more await for each
publish costs as much as a subscriber, and the iterator of a loop a third of that. So what is published most often is written out
in `publish`: to callbacks that are awaited with the event alone, one or several, with timing or without; and to one callback
that is awaited with a context. All others are in `_deliver`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextvars import copy_context
from threading import get_ident
from typing import Any

from phasebus.bus._context import Context
from phasebus.bus._deliver import deliver_awaited, deliver_general
from phasebus.bus._errors import WrongThreadError
from phasebus.bus._handling import CAUSE, EVENT, RUNNING, Handling, check_depth, handling, running_cause
from phasebus.bus._outcome import Outcome
from phasebus.bus._past import Past
from phasebus.bus._plan import NO_MAPPINGS, Plan, check_context
from phasebus.bus._subscription import Subscription
from phasebus.bus._view import Mark, View
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
                return await deliver_general(self, plan, event, context, here, outer)
            call = plan.watched_call
            if call is None:
                return await deliver_awaited(plan, event, context, here, outer)

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
            elif call is None:  # several, with timing
                ticks = ends = [clock()]
                try:
                    for call in plan.timed:  # type: ignore[union-attr]
                        value = await call(event)
                        if value is not None:
                            values = plan.keep(values, call, value, event, context)
                        ends.append(clock())
                finally:
                    plan.times.append(ends)  # type: ignore[union-attr]
            elif plan.durations is None:  # one, of an event that is watched
                value = await call(event)
                if value is not None:
                    values = plan.keep(values, call, value, event, context)
            else:  # one, with timing
                began = clock()
                value = await call(event)
                if value is not None:
                    values = plan.keep(values, call, value, event, context)
                ended = clock()
                ticks = (began, ended)
                plan.durations.append(ended - began)
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
