"""How an event reaches its subscribers where `Dispatcher.publish` does not call them itself."""

from __future__ import annotations

import time
from collections.abc import Mapping
from inspect import isawaitable
from typing import Any

from phasebus.bus._calls import call_guarded
from phasebus.bus._context import Context
from phasebus.bus._handling import EVENT, RUNNING, Handling, handling
from phasebus.bus._outcome import Outcome
from phasebus.bus._plan import NO_MAPPINGS, Plan
from phasebus.bus._publisher import Publisher
from phasebus.bus._returned import write_returned
from phasebus.bus._subscription import Subscription
from phasebus.bus._view import ALONE, Mark, View, references, view_of

_enter, _leave = handling.set, handling.reset
clock = time.perf_counter
now = time.time
COMMITTED, MANY = Mark.COMMITTED, Mark.MANY


async def deliver_awaited(  # noqa: C901  # as long as `publish`, and to be read beside it
    plan: Plan, event: object, context: Any, here: Handling, outer: Handling | None
) -> Outcome:
    """Deliver `event` where awaiting the subscribers is all there is to do for them, and `publish` does not do it itself.

    They are several, and some take a context; or there is timing as well as a context; or the event is watched.
    """
    values: dict[Subscription, Any] | None = None
    view = None
    nested = type(context) is not Context
    if not nested:
        data, log, longest = context.data, context.log, context.longest
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
                    data[key] = value = view.value
                    log.append((key, value, view.by, event, now()))
                    if len(log) >= longest:
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
        except ValueError:  # see `_leave` in `_dispatch`
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


async def deliver_general(  # noqa: C901  # as long as `publish`, and to be read beside it
    bus: Publisher, plan: Plan, event: object, context: Any, here: Handling, outer: Handling | None
) -> Outcome:
    """Deliver `event` where a subscriber needs more than an await.

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
                    value, view = await plan.call_in_step(bus, subscription, event, context, view)
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
        except ValueError:  # see `_leave` in `_dispatch`
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
