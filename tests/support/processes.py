"""What has become of a process."""

from __future__ import annotations

import psutil


def has_ended(process: psutil.Process) -> bool:
    """Return whether a process has ended, also if its parent never waits for it."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # between the two
        return True
