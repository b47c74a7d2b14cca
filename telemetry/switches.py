"""Environment variables that turn something on or off."""

from __future__ import annotations

from typing import Final

_ON: Final = frozenset({"1", "true", "yes", "on"})
_OFF: Final = frozenset({"0", "false", "no", "off"})


def is_on(value: str | None) -> bool:
    """Return whether the value of a variable is 1, true, yes or on, in any case."""
    return value is not None and value.strip().lower() in _ON


def is_off(value: str | None) -> bool:
    """Return whether the value of a variable is 0, false, no or off, in any case."""
    return value is not None and value.strip().lower() in _OFF
