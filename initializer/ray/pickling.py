"""Checking whether a value can be sent to another Ray process."""

from __future__ import annotations

from typing import Any


def can_be_pickled(value: Any) -> bool:
    """Return whether Ray can send `value` to another process."""
    from ray import cloudpickle

    if value is None or isinstance(value, str | int | float | bool):
        return True
    try:
        cloudpickle.dumps(value)
    except Exception:  # noqa: BLE001  # any error means that it cannot be sent
        return False
    return True
