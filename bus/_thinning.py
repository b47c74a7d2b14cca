"""Which of its events a slow observer is spared."""

from __future__ import annotations

import contextlib
import time
from zlib import crc32

from phasebus.bus._checks import seconds, shown
from phasebus.bus._errors import OptionError
from phasebus.bus._past import RUNNING_STEPS
from phasebus.bus._step_events import StepEvent, StepFailed, StepFinished, StepProgress


class Thinning:
    """Lets a part of the events pass.

    Args:
        sample: The share of events that pass, above 0 and at most 1. A step passes whole or not at all, by its id; other events
            pass at regular intervals.
        min_seconds: The least time between two events that pass: of the progress of one step, and of one class of events
            that are no steps, in seconds. The start and the end of a step always pass.

    Raises:
        OptionError: `sample` is no such share, or `min_seconds` no number of seconds.
    """

    def __init__(self, sample: float, min_seconds: float) -> None:
        if not isinstance(sample, int | float) or isinstance(sample, bool) or not 0 < sample <= 1:
            raise OptionError(f"sample={shown(sample)}: a share of the events is needed, above 0 and at most 1")
        self._sample = sample
        self._min_seconds = seconds("min_seconds", min_seconds)
        self._due = 1.0 - sample  # so that the first event passes
        self._last: dict[object, float] = {}

    def passes(self, event: object) -> bool:
        """Return whether the observer gets this `event`."""
        if isinstance(event, StepEvent):
            if self._sample < 1 and _position(event.step) >= self._sample:
                return False
            if isinstance(event, StepFinished | StepFailed):
                self._last.pop(event.step, None)
            return not isinstance(event, StepProgress) or self._is_time(event.step)
        if self._sample < 1:
            self._due += self._sample
            if self._due < 1:
                return False
            self._due -= 1
        return self._is_time(type(event))

    def _is_time(self, key: object) -> bool:
        if not self._min_seconds:
            return True
        now = time.monotonic()
        if now - self._last.get(key, -self._min_seconds) < self._min_seconds:
            return False
        self._last[key] = now
        if len(self._last) > RUNNING_STEPS:  # the ends of some were never published
            del self._last[next(iter(self._last))]
        return True


def _position(step: str) -> float:
    """Return a number from 0 to 1 that is the same for all events of a step, and evenly distributed over the steps."""
    if len(step) == 16:
        with contextlib.suppress(ValueError):  # else the publisher has ids of another kind
            return int(step, 16) / 2**64
    return crc32(step.encode(errors="replace")) / 2**32
