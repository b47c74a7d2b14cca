"""The steps that run: begun, and not ended."""

from __future__ import annotations

import platform
import threading

from phasebus.bus import StepEvent, StepStarted


class RunningSteps:
    """The starts of the steps that run. All methods may be called from any thread.

    What observers and the hub know of running steps is here. `Timeline` keeps ended steps and progress as well, the metrics
    keep the series of a step, and the tracker of vLLM's steps makes the starts itself: each has a table of its own.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._steps: dict[str, StepStarted] = {}

    def start(self, event: StepStarted) -> None:
        """Add a step that has begun."""
        with self._lock:
            self._steps[event.step] = event

    def end(self, step: str) -> StepStarted | None:
        """Remove the step with the id `step`, which has ended; return its start, or None if it does not run."""
        with self._lock:
            return self._steps.pop(step, None)

    def clear(self) -> None:
        """Remove all steps."""
        with self._lock:
            self._steps.clear()

    def __contains__(self, step: str) -> bool:
        """Return whether the step with the id `step` runs."""
        return step in self._steps

    def all(self) -> list[StepStarted]:
        """Return the starts of the running steps, in their order."""
        with self._lock:
            return sorted(self._steps.values(), key=lambda event: event.monotonic_ns)

    def innermost(self) -> list[StepStarted]:
        """Return those of them inside of which no other step runs."""
        steps = self.all()
        outer = {event.parent for event in steps}
        return [event for event in steps if event.step not in outer]

    @property
    def phase(self) -> str | None:
        """The name of the phase that has run longest; None between phases."""
        return next((event.name for event in self.all() if event.kind == "phase"), None)


def pid_of(step: StepEvent) -> int:
    """Return the id of the process of a step, if that is another one of this machine; 0 otherwise."""
    pid = step.attributes.get("pid")
    return pid if type(pid) is int and pid > 0 and not is_remote(step) else 0


def is_remote(step: StepEvent) -> bool:
    """Return whether a step runs on another machine."""
    host = step.attributes.get("host")
    return host is not None and host != platform.node()
