"""What is running now, for whoever asks from another thread: the probes, and people."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Running:
    """A step that has begun and not ended.

    Attributes:
        kind: Its kind.
        name: Its name.
        since: When it began, on the monotonic clock, in seconds.
    """

    kind: str
    name: str
    since: float


class Status:
    """Where a start-up stands. All methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[str, Running] = {}
        self._ready = False
        self._error: str | None = None

    def started(self, step: str, kind: str, name: str, since: float) -> None:
        """Note that a step has begun."""
        with self._lock:
            self._running[step] = Running(kind, name, since)

    def ended(self, step: str) -> None:
        """Note that a step has ended."""
        with self._lock:
            self._running.pop(step, None)

    def settle(self, error: str | None = None) -> None:
        """Note that the whole is ready, or has failed with `error`."""
        with self._lock:
            self._ready = error is None
            self._error = error

    @property
    def ready(self) -> bool:
        """Whether everything is ready to serve."""
        return self._ready

    @property
    def phase(self) -> str | None:
        """The name of the phase that has been running longest; None between phases."""
        with self._lock:
            phases = [step for step in self._running.values() if step.kind == "phase"]
        return min(phases, key=lambda step: step.since).name if phases else None

    def describe(self) -> dict[str, Any]:
        """Return all of it as JSON will say it; durations in seconds."""
        now = time.monotonic()
        phase = self.phase
        with self._lock:
            running = sorted(self._running.values(), key=lambda step: step.since)
            status = "failed" if self._error is not None else "ready" if self._ready else "starting"
            return {
                "status": status,
                "phase": phase,
                **({"error": self._error} if self._error is not None else {}),
                "running": [
                    {"kind": step.kind, "name": step.name, "seconds": round(now - step.since, 3)} for step in running
                ],
            }
