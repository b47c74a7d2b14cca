"""What a callable is made of: its name, the function behind it, and whether calling it returns something to await.

Objects of other people are examined here, so no property of theirs is run, and an attribute that raises is none.
"""

from __future__ import annotations

import functools
import inspect
from types import CodeType
from typing import Any


def attribute_of(thing: object, name: str) -> Any:
    """Return an attribute of `thing`; None if there is none, if it is a property, or if the access raises an error."""
    try:
        if isinstance(inspect.getattr_static(thing, name, None), property | functools.cached_property):
            return None
        return getattr(thing, name, None)
    except Exception:  # noqa: BLE001  # a __getattr__ that raises something else than AttributeError
        return None


def name_of(callback: object) -> str:
    """Return the name of `callback` for people: its function's, or its class's."""
    if isinstance(callback, functools.partial):
        return name_of(callback.func)
    name = attribute_of(callback, "__name__")
    if not isinstance(name, str):
        return type(callback).__name__
    return "lambda" if name == "<lambda>" else name


def function_of(callback: Any) -> Any:
    """Return the function that carries the annotations of `callback`."""
    while isinstance(callback, functools.partial):
        callback = callback.func
    if inspect.isroutine(callback):
        return callback
    return type(callback).__call__ if not isinstance(callback, type) else callback.__init__  # type: ignore[misc]


def is_async(callback: Any) -> bool:
    """Return whether a call of `callback` is known to return a coroutine."""
    return any(has_code(each) and inspect.iscoroutinefunction(each) for each in (callback, function_of(callback)))


def has_code(function: Any) -> bool:
    """Return whether `function` is made of Python code: a mock of a function has attributes of all names, and their values mean nothing."""
    return isinstance(attribute_of(function, "__code__"), CodeType)
