"""Which event is being handled in this context: what makes a publish a nested one.

A `ContextVar` holds it, so the rules are those of context variables: a task that was started while an event was handled
belongs to that event, also after it; a task that was started before does not.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from phasebus.bus._errors import NestingError

Handling = list[Any]
"""The handling of one event: at `EVENT` the event, at `CAUSE` the handling that it is nested in (None for a publish that no
handler made, or whose cause had ended), at `RUNNING` whether the publish is still in progress.

A list, because one is made for every publish: an object with these attributes takes twice as long to make.
"""

EVENT, CAUSE, RUNNING = range(3)

handling: ContextVar[Handling | None] = ContextVar("phasebus_handling", default=None)


def running_cause(outer: Handling) -> Handling | None:
    """Return the innermost handling, from `outer` outwards, whose publish is in progress.

    Those that have ended are left out, so an event that schedules its own successor neither nests nor keeps its past.
    """
    cause: Handling | None = outer
    while cause is not None and not cause[RUNNING]:
        cause = cause[CAUSE]
    return cause


def check_depth(event: object, cause: Handling | None, limit: int) -> None:
    """Raise NestingError when `event` would be nested in more than `limit` publishes that are in progress."""
    chain: list[str] = [type(event).__name__]
    while cause is not None:
        if cause[RUNNING]:
            chain.append(type(cause[EVENT]).__name__)
        cause = cause[CAUSE]
    depth = len(chain) - 1
    if depth > limit:
        raise NestingError(
            f"publishes have caused one another {depth} deep, and {limit} are allowed: {' > '.join(reversed(chain))}; "
            "break the circle, or make the bus with a larger max_depth"
        )


def current_event() -> Any:
    """Return the event that this code runs for: the innermost one whose handling led here; None outside any."""
    here = handling.get()
    return None if here is None else here[EVENT]
