"""Warnings about steps that run for long, while they run."""

from __future__ import annotations

import logging
import threading
import time

from phasebus.bus import StepFailed, StepFinished, StepStarted
from phasebus.telemetry.formatting import format_duration
from phasebus.telemetry.redaction import redact_name
from phasebus.telemetry.running_steps import RunningSteps
from phasebus.telemetry.span_names import span_name

logger = logging.getLogger("phasebus.startup")


class Watchdog:
    """Warns of innermost steps that run for long; they are what the start-up waits for.

    Args:
        seconds: The time after which a running step is logged, and logged again.
        logger: The logger; ``phasebus.startup`` by default.
    """

    def __init__(self, seconds: float = 60.0, *, logger: logging.Logger = logger) -> None:
        self._seconds = seconds
        self._logger = logger
        self._running = RunningSteps()
        self._logged: dict[str, float] = {}
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="phasebus watchdog", daemon=True)

    def observe(self, event: StepStarted | StepFinished | StepFailed) -> None:
        """Record a step's start or end."""
        if isinstance(event, StepStarted):
            self._running.start(event)
        else:
            self._running.end(event.step)
        if not self._thread.ident:
            self._thread.start()

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(min(1.0, self._seconds / 4)):
            now = time.monotonic()
            for step in self._overdue(now):
                name = redact_name(span_name(step.kind, step.name))
                self._logger.warning("%s has been running for %s", name, format_duration(now - step.monotonic_ns / 1e9))

    def _overdue(self, now: float) -> list[StepStarted]:
        """Return the innermost steps that are due to be logged, and note that they are."""
        innermost = self._running.innermost()
        overdue = [
            event
            for event in innermost
            if now - self._logged.get(event.step, event.monotonic_ns / 1e9) >= self._seconds
        ]
        self._logged = {step: at for step, at in self._logged.items() if step in self._running}
        self._logged.update({event.step: now for event in overdue})
        return overdue
