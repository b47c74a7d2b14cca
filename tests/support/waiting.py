"""Waiting for a condition in another process, where there is no event to wait for."""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil


def wait_until(holds: Callable[[], object], what: str, seconds: float = 120.0) -> None:
    """Return as soon as `holds()`; fail, saying `what`, if it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    pause = 0.001
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(pause)
        pause = min(2 * pause, 0.05)


def has_ended(process: psutil.Process) -> bool:
    """Return whether a process has ended, also if its parent never waits for it."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # between the two
        return True
