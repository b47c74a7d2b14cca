"""The current state of a start-up, for the probes."""

from __future__ import annotations

from phasebus.bus import StepEvent, StepFailed, StepFinished, StepStarted
from phasebus.telemetry.metrics import Metrics
from phasebus.telemetry.redaction import reason
from phasebus.telemetry.status import Status


class StatusObserver:
    """Updates a `Status`: ready when the outermost step has finished.

    Args:
        status: The status that it updates.
        metrics: The metrics whose `phasebus_ready` it sets.
    """

    def __init__(self, status: Status, metrics: Metrics) -> None:
        self._status = status
        self._metrics = metrics
        self._outermost: str | None = None

    def observe(self, event: StepEvent) -> None:
        """Record a step's start or end."""
        if isinstance(event, StepStarted):
            self._outermost = self._outermost or event.step
            self._status.started(event)
        elif isinstance(event, StepFinished | StepFailed):
            self._status.ended(event.step)
            if event.step == self._outermost:
                error = reason(event) if isinstance(event, StepFailed) else None
                self._status.settle(error)
                self._metrics.ready.set(self._status.ready)
