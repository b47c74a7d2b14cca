"""The time remaining until a start is ready, as JSON data: ``seconds``, a range from ``low`` to ``high``, and where it is from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def count_down(remaining: Mapping[str, Any] | None, passed: float) -> dict[str, Any] | None:
    """Return the time remaining `passed` seconds later."""
    if remaining is None:
        return None
    passed = max(0.0, passed)
    times = {name: max(0.0, remaining[name] - passed) for name in ("seconds", "low", "high")}
    return {**remaining, **times}
