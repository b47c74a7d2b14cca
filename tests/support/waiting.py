"""Waiting for a condition in another process, where there is no event to wait for."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(holds: Callable[[], object], what: str, seconds: float = 120.0) -> None:
    """Return as soon as `holds()`; fail, saying `what`, if it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    pause = 0.001
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(pause)
        pause = min(2 * pause, 0.05)
