"""The state of a start as lines of a log: one when something is wrong, and one now and then while it starts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from phasebus.telemetry.own_threads import OWN_THREADS
from phasebus.telemetry.verdict import Step, describe, verdict

_FIRST_SECONDS: Final = 10.0
_INTERVAL_SECONDS: Final = 30.0
_CHECK_SECONDS: Final = 1.0
_CHECK_SHARE: Final = 50
"""Checking takes at most one part in so many of a processor, however many steps there are."""


class StatusLines:
    """Decides when the state of a start is worth a line.

    Args:
        now: The time that the start is observed from, on the clock that `line` gets.
        report_stuck: Whether a stuck step is a line at once. In its own process, the watchdog logs it with its evidence.
    """

    def __init__(self, now: float, *, report_stuck: bool = True) -> None:
        self._report_stuck = report_stuck
        self._next = now + _FIRST_SECONDS
        self._last: tuple[str, str] = ("", "")

    def line(
        self,
        steps: Mapping[str, Step],
        now: float,
        remaining: Mapping[str, Any] | None = None,
        stuck: Sequence[Mapping[str, Any]] = (),
    ) -> str | None:
        """Return the line that is due; None if none is.

        A start that is over needs none: its end is a line already.
        """
        found = verdict(steps, now, stuck)
        if found.is_over or (found.step is None and found.state == "waiting"):
            return None
        known = (found.state, found.step["id"] if found.step is not None else "")
        is_new_problem = found.state != "starting" and known != self._last
        if is_new_problem and found.state == "stuck" and not self._report_stuck:
            self._last, self._next = known, now + _INTERVAL_SECONDS
            return None
        if not is_new_problem and now < self._next:
            return None
        self._last, self._next = known, now + _INTERVAL_SECONDS
        return describe(found, remaining, with_node=sum(step["kind"] == "node" for step in steps.values()) > 1)


class StatusThread:
    """Passes the status lines of a start on, until it is closed.

    Args:
        read: Returns the steps by id, the time remaining and what is stuck.
        write: Called with each line.
        report_stuck: See `StatusLines`.
    """

    def __init__(
        self,
        read: Callable[[], tuple[Mapping[str, Step], Mapping[str, Any] | None, Sequence[Mapping[str, Any]]]],
        write: Callable[[str], object],
        *,
        report_stuck: bool = True,
    ) -> None:
        self._read, self._write, self._report_stuck = read, write, report_stuck
        self._closed = threading.Event()
        threading.Thread(target=self._run, name="phasebus status", daemon=True).start()

    def close(self) -> None:
        """End it."""
        self._closed.set()

    def _run(self) -> None:
        with OWN_THREADS.counted():
            lines, pause = StatusLines(time.time(), report_stuck=self._report_stuck), _CHECK_SECONDS
            while not self._closed.wait(pause):
                began = time.monotonic()
                steps, remaining, stuck = self._read()
                if line := lines.line(steps, time.time(), remaining, stuck):
                    self._write(line)
                pause = max(_CHECK_SECONDS, _CHECK_SHARE * (time.monotonic() - began))
