"""The time of events: the wall clock, continued evenly where it is set while steps run.

A machine may set its clock during a start, for example at the first synchronization after its boot. With the times of the wall
clock, the step that runs would then take an hour, or end before it begins, and a parent would not contain its children.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import Final

SMALLEST_CHANGE_NS: Final = 2_000_000_000
"""A smaller change of the wall clock is followed: a leap second, or a correction in many small parts."""

_STEADY: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Linux's clock that nothing sets, and that counts the time in which a machine is suspended, as the wall clock does."""

_steady_ns: Final = partial(time.clock_gettime_ns, _STEADY)


class EventClock:
    """A wall clock without the changes that it is set by. Its methods may be called from any thread.

    Args:
        wall: Returns the time in nanoseconds since the epoch.
        steady: Returns the nanoseconds since any fixed moment.
    """

    def __init__(
        self,
        wall: Callable[[], int] = time.time_ns,
        steady: Callable[[], int] = _steady_ns,
    ) -> None:
        self._wall = wall
        self._steady = steady
        self._lock = Lock()
        self._offset = wall() - steady()
        self._correction = 0

    def now_ns(self) -> int:
        """Return the time in nanoseconds since the epoch; without the changes of the wall clock since `restart`."""
        wall = self._wall()
        moved = wall - self._steady() - self._offset
        if -SMALLEST_CHANGE_NS < moved < SMALLEST_CHANGE_NS:
            self._offset += moved
            return wall + self._correction
        with self._lock:  # the wall clock was set, or this thread was stopped between the two clocks
            wall = self._wall()
            moved = wall - self._steady() - self._offset
            self._offset += moved
            if not -SMALLEST_CHANGE_NS < moved < SMALLEST_CHANGE_NS:
                self._correction -= moved
            return wall + self._correction

    def correction_ns(self) -> int:
        """Return what is to be added to a time of the wall clock that another process has just reported, in nanoseconds."""
        self.now_ns()
        return self._correction

    def restart(self) -> None:
        """Follow the wall clock again, with all changes until now: an outermost step begins.

        Another one that runs beside it, and began before such a change, has its end at the time of the wall clock.
        """
        self._offset, self._correction = self._wall() - self._steady(), 0

    def forked(self) -> None:
        """Release the lock in a forked process, which lacks the thread that may have held it."""
        self._lock = Lock()


_EVENTS: Final = EventClock()
os.register_at_fork(after_in_child=_EVENTS.forked)

now_ns = _EVENTS.now_ns
correction_ns = _EVENTS.correction_ns
restart = _EVENTS.restart
