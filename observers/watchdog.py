"""Steps that take long, said while they do."""

from __future__ import annotations

import logging
import threading
import time

from phasebus.bus import StepFailed, StepFinished, StepStarted
from phasebus.telemetry.formatting import format_duration
from phasebus.telemetry.names import span_name
from phasebus.telemetry.redaction import redact

logger = logging.getLogger("phasebus.startup")


class Watchdog:
    """Warns when something has run for long, and says what runs innermost: that is what everything waits for.

    Args:
        seconds: How long a step may run before it is spoken of, and after how long again.
        logger: Where; ``phasebus.startup`` by default.
    """

    def __init__(self, seconds: float = 60.0, *, logger: logging.Logger = logger) -> None:
        self._seconds = seconds
        self._logger = logger
        self._lock = threading.Lock()
        self._running: dict[str, StepStarted] = {}
        self._next: dict[str, float] = {}
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="phasebus watchdog", daemon=True)

    def observe(self, event: StepStarted | StepFinished | StepFailed) -> None:
        """Take note of a step's begin or end."""
        with self._lock:
            if isinstance(event, StepStarted):
                self._running[event.step] = event
                self._next[event.step] = event.monotonic_ns / 1e9 + self._seconds
            else:
                self._running.pop(event.step, None)
                self._next.pop(event.step, None)
        if not self._thread.ident:
            self._thread.start()

    def close(self) -> None:
        """Watch no more."""
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(min(1.0, self._seconds / 4)):
            for step, seconds in self._overdue(time.monotonic()):
                self._logger.warning(
                    "%s has been running for %s", redact(span_name(step.kind, step.name)), format_duration(seconds)
                )

    def _overdue(self, now: float) -> list[tuple[StepStarted, float]]:
        """Return the steps that are due to be spoken of, and nothing runs inside of, with their seconds so far."""
        with self._lock:
            outer = {step.parent for step in self._running.values()}
            overdue = [
                step for step in self._running.values() if step.step not in outer and self._next[step.step] <= now
            ]
            for step in overdue:
                self._next[step.step] = now + self._seconds
        return [(step, now - step.monotonic_ns / 1e9) for step in overdue]
