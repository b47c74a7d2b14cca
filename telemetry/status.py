"""The readiness of a process and its running steps, for the probes."""

from __future__ import annotations

import time
from typing import Any

from phasebus.bus import StepStarted
from phasebus.telemetry.redaction import redact_name
from phasebus.telemetry.running_steps import RunningSteps
from phasebus.telemetry.stuck import StuckSteps


class Status:
    """The state of a start-up. All methods may be called from any thread."""

    def __init__(self) -> None:
        self._running = RunningSteps()
        self._ready = False
        self._stopping = False
        self._error: str | None = None
        self._stuck = StuckSteps()

    def started(self, event: StepStarted) -> None:
        """Record the start of a step."""
        self._running.start(event)

    def ended(self, step: str) -> None:
        """Record the end of the step with the id `step`."""
        self._running.end(step)

    def set_stuck(self, stuck: StuckSteps) -> None:
        """Record the steps that are stuck now."""
        self._stuck = stuck

    def settle(self, error: str | None = None) -> None:
        """Record that the start-up is ready, or has failed with `error`."""
        self._error = error
        self._ready = error is None

    def stop(self) -> None:
        """Record that the process ends: it finishes the running requests, and should get no more."""
        self._stopping = True

    @property
    def ready(self) -> bool:
        """Whether the start-up is ready to serve."""
        return self._ready and not self._stopping

    @property
    def _stage(self) -> str:
        return "stopping" if self._stopping else "ready" if self._ready else "starting"

    @property
    def phase(self) -> str | None:
        """The name of the phase that has run longest; None between phases."""
        phase = self._running.phase
        return None if phase is None else redact_name(phase)

    def describe(self) -> dict[str, Any]:
        """Return the state as JSON data; durations in seconds."""
        now, error = time.monotonic(), self._error
        return {
            "status": "failed" if error is not None else self._stage,
            "phase": self.phase,
            **({"error": error} if error is not None else {}),
            **({"stuck": [step.headline() for step in self._stuck.steps]} if self._stuck.steps else {}),
            "running": [
                {
                    "kind": step.kind,
                    "name": redact_name(step.name),
                    "seconds": round(now - step.monotonic_ns / 1e9, 3),
                }
                for step in self._running.all()
            ],
        }
