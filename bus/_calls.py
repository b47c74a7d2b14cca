"""Calling a subscriber with what it asked for besides: retries, a timeout, a thread."""

from __future__ import annotations

from contextvars import ContextVar
from functools import partial
from inspect import isawaitable
from typing import Any

import anyio
import anyio.to_thread

from phasebus.bus._errors import CallbackTimeoutError
from phasebus.bus._subscription import Retry, Subscription
from phasebus.bus._view import View

thread_waits: ContextVar[bool] = ContextVar("phasebus_thread_waits", default=False)
"""Whether a thread waits for what runs here. It may be one of a limited number, all of which may wait in the same way."""


async def call_guarded(subscription: Subscription, event: object, view: View | None) -> Any:
    """Call a subscriber as its policies ask; return its value, or raise its last error."""
    retry = subscription.on_error
    tries = 0
    while True:
        try:
            return await _call_in_time(subscription, event, view)
        except Exception as error:
            tries += 1
            if not isinstance(retry, Retry) or tries > retry.times or not retry.is_for(error):
                raise
        if view is not None:
            view.discard()
        await anyio.sleep(retry.pause(tries))


async def _call_in_time(subscription: Subscription, event: object, view: View | None) -> Any:
    if subscription.timeout is None:
        return await _call(subscription, event, view)
    with anyio.move_on_after(subscription.timeout) as scope:
        value = await _call(subscription, event, view)
    # Also when it returned, but late: a callable that blocks, or that swallows its cancellation, has its writes undone.
    if scope.cancelled_caught or anyio.current_time() > scope.deadline:
        raise CallbackTimeoutError(
            f"{subscription.name!r} took longer than its {subscription.timeout:g} s during {type(event).__name__}"
        )
    return value


async def _call(subscription: Subscription, event: object, view: View | None) -> Any:
    call = partial(subscription.call, event) if view is None else partial(subscription.call, event, view)
    if subscription.thread:
        limiter = (
            anyio.CapacityLimiter(1) if thread_waits.get() else None
        )  # its own: none of the common ones may get free
        # In a list, because a thread must not return a coroutine to Trio; it is awaited in the loop.
        (value,) = await anyio.to_thread.run_sync(
            lambda: [call()], abandon_on_cancel=subscription.timeout is not None, limiter=limiter
        )
    else:
        value = call()
    return await value if isawaitable(value) else value
