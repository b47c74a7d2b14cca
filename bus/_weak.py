"""Callbacks that are held weakly: methods that are called for as long as something else holds their object."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any
from weakref import WeakMethod

from phasebus.bus._errors import OptionError
from phasebus.bus._forms import Callback
from phasebus.bus._functions import name_of


def reference_to(callback: Callback, gone: Callable[[], object]) -> WeakMethod[Callback]:
    """Return a weak reference to a method; `gone` is called when its object is deleted, in any thread.

    Raises:
        OptionError: `callback` is no method of an object that can be referenced weakly.
    """
    if not inspect.ismethod(callback):
        raise OptionError(
            f"weak=True: {name_of(callback)!r} is no method of an object, so nothing else may hold it; "
            "leave weak out, and unsubscribe it when it is no longer needed"
        )
    try:
        return WeakMethod(callback, lambda _: gone())
    except TypeError as error:
        raise OptionError(f"weak=True: {error}; give its class a slot '__weakref__'") from error


def call_weakly(reference: WeakMethod[Callback], unsubscribe: Callable[[], object], *, awaited: bool) -> Callback:
    """Return a function that calls the method; once its object is deleted, it does no more than `unsubscribe`."""

    def call(*arguments: Any) -> Any:
        method = reference()
        return unsubscribe() if method is None else method(*arguments)

    async def call_and_await(*arguments: Any) -> Any:
        method = reference()
        return unsubscribe() if method is None else await method(*arguments)

    return call_and_await if awaited else call
