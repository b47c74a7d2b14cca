"""Carrying context variables from one task to another.

A task gets a copy of the context variables of the task that starts it. The values that it sets are lost when it ends,
unless they are set in the other task as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import Context, ContextVar, copy_context
from typing import Any

_OWN_PREFIX = "phasebus_"
"""The prefix of phasebus's own context variables; these describe one task and are not carried to another."""


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
