"""The running steps of a process, and whether it is ready: for the probes and the watchdog, from any thread."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class RunningStep:
    """A step that has begun and not ended.

    Attributes:
        id: Its id.
        kind: Its kind.
        name: Its name.
        since: Its start on the monotonic clock, in seconds.
        parent: The id of the step it belongs to, or None.
    """

    id: str
    kind: str
    name: str
    since: float
    parent: str | None = None


class RunningSteps:
    """The steps that run. All methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._steps: dict[str, RunningStep] = {}

    def start(self, step: RunningStep) -> None:
        """Add a step that has begun."""
        with self._lock:
            self._steps[step.id] = step

    def end(self, id_: str) -> None:
        """Remove a step that has ended."""
        with self._lock:
            self._steps.pop(id_, None)

    def all(self) -> list[RunningStep]:
        """Return the running steps, the one that began first first."""
        with self._lock:
            return sorted(self._steps.values(), key=lambda step: step.since)

    def innermost(self) -> list[RunningStep]:
        """Return the running steps inside of which no other step runs, the one that began first first."""
        steps = self.all()
        outer = {step.parent for step in steps}
        return [step for step in steps if step.id not in outer]


class Status:
    """The state of a start-up. All methods may be called from any thread."""

    def __init__(self) -> None:
        self._running = RunningSteps()
        self._ready = False
        self._error: str | None = None

    def started(self, step: str, kind: str, name: str, since: float) -> None:
        """Record the start of a step, at `since` seconds on the monotonic clock."""
        self._running.start(RunningStep(step, kind, name, since))

    def ended(self, step: str) -> None:
        """Record the end of a step."""
        self._running.end(step)

    def settle(self, error: str | None = None) -> None:
        """Record that the start-up is ready, or has failed with `error`."""
        self._error = error
        self._ready = error is None

    @property
    def ready(self) -> bool:
        """Whether the start-up is ready to serve."""
        return self._ready

    @property
    def phase(self) -> str | None:
        """The name of the phase that has run longest; None between phases."""
        return next((step.name for step in self._running.all() if step.kind == "phase"), None)

    def describe(self) -> dict[str, Any]:
        """Return the state as JSON data; durations in seconds."""
        now, error = time.monotonic(), self._error
        status = "failed" if error is not None else "ready" if self._ready else "starting"
        return {
            "status": status,
            "phase": self.phase,
            **({"error": error} if error is not None else {}),
            "running": [
                {"kind": step.kind, "name": step.name, "seconds": round(now - step.since, 3)}
                for step in self._running.all()
            ],
        }
