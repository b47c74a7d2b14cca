"""Checks of options, where they are given."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Iterable
from difflib import get_close_matches
from typing import Any

from phasebus.bus._errors import OptionError
from phasebus.bus._functions import is_async
from phasebus.printable import bounded_text

SHOWN_CHARACTERS = 300
"""How much of a wrong value a message shows."""


def shown(value: object) -> str:
    """Return a wrong `value` for the message that refuses it: shortened, and also if its class cannot print it."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001  # deep nesting, or a __repr__ that raises
        text = f"<{type(value).__name__}>"
    return bounded_text(text, SHOWN_CHARACTERS)


def count(option: str, value: object, *, at_least: int) -> int:
    """Return `value` if it is a whole number of at least so much.

    Raises:
        OptionError: It is not.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
        raise OptionError(f"{option}={shown(value)}: a whole number of at least {at_least} is needed")
    return value


def seconds(option: str, value: object) -> float:
    """Return `value` if it is a number of seconds, zero or more.

    Raises:
        OptionError: It is not.
    """
    if not isinstance(value, int | float) or isinstance(value, bool) or math.isnan(value) or value < 0:
        raise OptionError(f"{option}={shown(value)}: a number of seconds is needed, such as {option}=5.0")
    return value


def flag(option: str, value: object) -> bool:
    """Return `value` if it is True or False.

    Raises:
        OptionError: It is not.
    """
    if not isinstance(value, bool):
        raise OptionError(f"{option}={shown(value)}: True or False is needed")
    return value


def names(option: str, value: object) -> tuple[str, ...]:
    """Return the name or names in `value` as a tuple.

    Raises:
        OptionError: It is neither a text nor a collection of texts.
    """
    given = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Iterable) else (value,)
    if not all(isinstance(name, str) and name for name in given):
        raise OptionError(f"{option}={shown(value)}: a name is needed, or a list of names")
    return given


def condition(option: str, value: Any) -> Callable[[Any], bool]:
    """Return a function that returns whether the function `value` is true for its argument; None is true for any.

    Raises:
        OptionError: It is no function, or one that has to be awaited: what that returns is always true.
    """
    if value is None:
        return lambda _: True
    if not callable(value):
        raise OptionError(f"{option}={shown(value)}: a function is needed, such as lambda event: event.name == 'a'")
    not_awaited = OptionError(
        f"{option}={shown(value)}: it is asynchronous, and is not awaited; give a plain function, or await it for each event "
        "of a stream"
    )
    if is_async(value):
        raise not_awaited

    def holds(argument: Any) -> bool:
        result = value(argument)
        if inspect.iscoroutine(result):
            result.close()
            raise not_awaited
        return bool(result)

    return holds


def one_of(option: str, value: object, allowed: Collection[str], otherwise: str = "") -> None:
    """Raise OptionError unless `value` is one of the `allowed` words; `otherwise` names what else is.

    Raises:
        OptionError: It is not.
    """
    if not (isinstance(value, str) and value in allowed):
        words = ", ".join(map(repr, allowed))
        near = nearest(value, allowed) if isinstance(value, str) else ""
        raise OptionError(f"{option}={shown(value)}: it is one of {words}{otherwise}{near}")


def nearest(name: str, known: Collection[str], cutoff: float = 0.6) -> str:
    """Return a question for the end of a message when a known name is close to `name`; else nothing.

    Args:
        name: The name that is not known.
        known: Those that are.
        cutoff: How alike they have to be, 0 to 1; see `difflib.get_close_matches`.
    """
    spelt = {each.lower(): each for each in known}
    close = get_close_matches(name.lower(), spelt, n=1, cutoff=cutoff)
    return f". Did you mean {spelt[close[0]]!r}?" if close else ""
