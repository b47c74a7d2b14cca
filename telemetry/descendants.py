"""The processes that a process has started."""

from __future__ import annotations

from contextlib import suppress

import psutil


def descendants(process: psutil.Process) -> list[psutil.Process]:
    """Return the processes that `process` has started, those that they have started, and so on.

    Where /proc hides the processes of other users (``hidepid=1``), psutil raises `PermissionError` for one of these while it
    looks for children (https://github.com/giampaolo/psutil/issues/2026). There, the visible processes are searched.

    Raises:
        psutil.NoSuchProcess: `process` has ended.
    """
    try:
        return process.children(recursive=True)
    except (PermissionError, psutil.AccessDenied):
        return _visible_descendants(process)


def _visible_descendants(process: psutil.Process) -> list[psutil.Process]:
    children: dict[int, list[psutil.Process]] = {}
    for each in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            children.setdefault(each.ppid(), []).append(each)
    found: list[psutil.Process] = []
    pending = [process.pid]
    while pending:
        started = children.pop(pending.pop(), [])
        found += started
        pending += [each.pid for each in started]
    return found
