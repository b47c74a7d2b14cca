"""Carrying context variables from one task to another.

A task gets a copy of the context variables of the task that starts it. What it sets itself is lost when it ends, unless
it is carried back.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import Context, ContextVar, copy_context
from typing import Any

_OWN_PREFIX = "phasebus_"
"""How the names of phasebus's own context variables begin: they describe the task that they are set in."""


def changed_variables(before: Context) -> Mapping[ContextVar[Any], Any]:
    """Return the context variables that differ from `before` in the current context, with their values."""
    missing = object()
    return {
        variable: value
        for variable, value in copy_context().items()
        if before.get(variable, missing) is not value and not variable.name.startswith(_OWN_PREFIX)
    }


def set_variables(values: Mapping[ContextVar[Any], Any]) -> None:
    """Set context variables in the current context."""
    for variable, value in values.items():
        variable.set(value)
