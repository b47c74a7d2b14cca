"""The forecast of a start while it runs: the events of its steps go in, the time remaining comes out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from phasebus.bus import StepEvent, StepFailed, StepFinished, StepProgress, StepStarted
from phasebus.telemetry.analysis.forecast import (
    Forecast,
    Progress,
    Remaining,
    StepKey,
    Usual,
    following,
    key_of,
    usual_durations,
    usual_order,
)
from phasebus.telemetry.analysis.forecast.past import CPU_SECONDS_BEFORE, cpu_seconds_of
from phasebus.telemetry.history.configuration import busyness_of
from phasebus.telemetry.history.loading import EarlierStarts
from phasebus.telemetry.history.machine import cpu_seconds
from phasebus.telemetry.running_steps import pid_of

_MAX_RUNNING: Final = 20_000
_MAX_FOLLOWING: Final = 4
_LEAST_PROGRESS: Final = 0.05
"""The share of a step that is done before its own progress says how long it still takes."""


@dataclass(slots=True)
class _Running:
    key: StepKey
    began: float
    pid: int
    cpu_before: float


class LiveForecast:
    """The forecast of one start. All methods may be called from any thread.

    Args:
        root: The begin of its outermost step.
        cpu_seconds: Returns the CPU time that a process of this machine has used; None if it is gone.
    """

    def __init__(self, root: StepStarted, cpu_seconds: Callable[[int], float | None] = cpu_seconds) -> None:
        self._cpu_seconds = cpu_seconds
        self._begin_ns = root.time_ns
        self._several = root.kind == "cluster"
        self._forecast: Forecast | None = None
        self._usual: Mapping[StepKey, Usual] = {}
        self._order: Sequence[StepKey] = ()
        self._measured: set[StepKey] = set()  # the steps with a recorded CPU time
        self._progress = Progress(busyness=busyness_of(root.attributes))
        self._running: dict[str, _Running] = {}
        self._new_usual: dict[str, Usual] = {}
        self._lock = threading.Lock()

    def compare_with(self, earlier: EarlierStarts) -> None:
        """Forecast from `earlier` starts from now on."""
        forecast, usual = Forecast(earlier.runs, earlier.basis), usual_durations(earlier.runs)
        order = () if self._several else usual_order(earlier.runs, usual)
        with self._lock:
            self._forecast, self._usual, self._order = forecast, usual, order
            self._measured = {step for past in earlier.runs for step in past.cpu}
            for step, running in self._running.items():
                self._expect(step, running.key)

    def observe(self, event: StepEvent, node: str = "") -> None:
        """Record an event of a step of the start.

        Args:
            event: The event.
            node: The node of the step, in a start of several.
        """
        at = (event.time_ns - self._begin_ns) / 1e9
        with self._lock:
            running = self._running.get(event.step)
            if isinstance(event, StepStarted):
                self._begin(event, node, at)
            elif running is None:
                return
            elif isinstance(event, StepProgress):
                self._advance(event, running, at)
            elif isinstance(event, StepFinished | StepFailed):
                del self._running[event.step]
                self._progress.end(running.key, at)

    def new_usual(self) -> dict[str, Usual]:
        """Return the usual durations of the steps that have begun since the last call, by their ids."""
        with self._lock:
            new, self._new_usual = self._new_usual, {}
            return new

    def remaining(self, now_ns: int) -> Remaining | None:
        """Return the time remaining at `now_ns`, in nanoseconds since the epoch; None without earlier starts."""
        with self._lock:
            if self._forecast is None:
                return None
            for running in self._running.values():
                measured = running.pid and running.key in self._measured
                if measured and (used := self._cpu_seconds(running.pid)) is not None:
                    self._progress.cpu[running.key] = max(0.0, used - running.cpu_before)
            return self._forecast.remaining(self._progress, max(0.0, (now_ns - self._begin_ns) / 1e9))

    def following(self) -> list[dict[str, Any]]:
        """Return the next steps that usually follow, as JSON data; none in a start of several nodes."""
        with self._lock:
            steps = following(self._order, self._progress)[:_MAX_FOLLOWING]
            return [
                {
                    "kind": step.kind,
                    "name": step.name,
                    "process": step.process,
                    "seconds": round(self._usual[step].seconds, 3),
                }
                for step in steps
            ]

    def _begin(self, event: StepStarted, node: str, at: float) -> None:
        name = self._node_of(event, node) if self._several else ""
        key = key_of(event.kind, event.name, name, event.attributes)
        if len(self._running) < _MAX_RUNNING:
            before = cpu_seconds_of(event.attributes, CPU_SECONDS_BEFORE)
            self._running.setdefault(event.step, _Running(key, at, pid_of(event), before))
            self._progress.begin(key, at)
        self._expect(event.step, key)

    def _expect(self, step: str, key: StepKey) -> None:
        if (usual := self._usual.get(key)) is not None:
            self._new_usual[step] = usual

    def _node_of(self, event: StepStarted, node: str) -> str:
        """Return the node of a step as a recorded run has it: "" for a step of the driver."""
        if event.kind == "node":
            return str(event.attributes.get("node", event.name))
        return node

    def _advance(self, event: StepProgress, running: _Running, at: float) -> None:
        """Record how long a step that reports its progress will still take at its mean speed."""
        if event.total and event.done >= _LEAST_PROGRESS * event.total and event.done <= event.total:
            left = (at - running.began) * (event.total / event.done - 1)
            self._progress.left[running.key] = max(0.0, left)


def plain_remaining(remaining: Remaining) -> dict[str, Any]:
    """Return a time remaining as JSON data."""
    return {
        "seconds": round(remaining.seconds, 2),
        "low": round(remaining.low, 2),
        "high": round(remaining.high, 2),
        "runs": remaining.runs,
        "basis": remaining.basis,
    }


def plain_usual(usual: Usual) -> dict[str, float]:
    """Return a usual duration as JSON data."""
    return {"seconds": round(usual.seconds, 3), "low": round(usual.low, 3), "high": round(usual.high, 3)}
