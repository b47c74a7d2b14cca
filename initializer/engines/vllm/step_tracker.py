"""The running steps of vLLM's processes, and the events that their notices and spans become."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil

from phasebus.bus import StepEvent, StepOutcome
from phasebus.clock import correction_ns
from phasebus.initializer.engines.protocol import (
    ENGINE_STEP,
    EngineError,
    EngineStepFailed,
    EngineStepFinished,
    EngineStepStarted,
    describe_exit,
)
from phasebus.initializer.engines.vllm.inside.processes import IMPORT_ENGINE, SERVES, START_PROCESS
from phasebus.initializer.engines.vllm.reports import (
    ProcessKey,
    StepReport,
    process_key,
    report_of_notice,
    report_of_span,
)
from phasebus.initializer.engines.vllm.step_ids import StepIds
from phasebus.initializer.engines.vllm.step_places import StepPlaces
from phasebus.telemetry import EngineSpan, Notice, StepNotice

_ROUNDING_NS = 20_000_000
"""The system counts the age of a process in ticks of 10 ms."""

_WORKER_STEPS = frozenset({"init_worker", "create_worker"})
"""The first steps of a worker; one that shares the engine core's process has the second only."""


@dataclasses.dataclass(frozen=True, slots=True)
class RunningStep:
    """A step that has begun and not ended.

    Attributes:
        started: The event of its beginning.
        process: The name of its process.
        key: Its process.
    """

    started: EngineStepStarted
    process: str
    key: ProcessKey

    def __str__(self) -> str:
        where = f"{self.process}, process {self.key.pid}" if self.key.pid else self.process
        return f"{self.started.name} ({where})"

    @property
    def process_is_gone(self) -> bool:
        """Whether its process has ended; False if that cannot be known from here."""
        if not self.key.pid or self.key.host is not None:
            return False
        try:
            return psutil.Process(self.key.pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True


class StepTracker:
    """Turns notices and spans into events: each step begins once and ends once.

    A step's notice arrives at once and its span, by way of vLLM's exporter, up to seconds later; a process without our
    plugin sends spans only.

    Args:
        headless: Whether the engine has no API server: it is ready when its workers are.
        is_exported: Returns whether the engine's processes export their spans past this process.
        since_ns: When the start of the engine began, in nanoseconds since the epoch. A process that is older was not
            started for it: only its imports since then are a step.

    Attributes:
        model: The name that the engine serves its model under; None until the engine has reported it.
    """

    def __init__(
        self, *, headless: bool = False, is_exported: Callable[[], bool] = lambda: False, since_ns: int = 0
    ) -> None:
        self._headless = headless
        self._is_exported = is_exported
        self._since_ns = since_ns
        self._places = StepPlaces()
        self._running: dict[str, RunningStep] = {}
        self._ended: set[str] = set()
        self._failed: dict[str, EngineStepFailed] = {}
        self._names: dict[ProcessKey, str] = {}
        self._exits: dict[ProcessKey, str] = {}
        self._ids = StepIds()
        self._servers: set[ProcessKey] = set()
        self._ready: set[ProcessKey] = set()
        self._workers: set[ProcessKey] = set()
        self._warm: set[ProcessKey] = set()
        self.model: str | None = None

    @property
    def running(self) -> tuple[RunningStep, ...]:
        """The steps that have not ended, in the order they began."""
        return tuple(sorted(self._running.values(), key=lambda step: step.started.time_ns))

    @property
    def ready(self) -> bool:
        """Whether the engine answers: every one of its API servers does; without any, every worker has warmed up."""
        if self._headless:
            return bool(self._warm) and self._warm >= self._workers
        return self._ready >= self._servers if self._servers else bool(self._ready)

    def events_of(self, arrival: EngineSpan | Notice) -> Iterator[StepEvent]:
        """Yield the events that are new in a notice or a span."""
        if isinstance(arrival, EngineSpan):
            yield from self._of_span(report_of_span(arrival))
        elif not isinstance(arrival, StepNotice):
            return
        elif arrival.event == "ready":
            self._ready.add(process_key(arrival))
        elif arrival.event == "exited":
            self._exits.setdefault(process_key(arrival), describe_exit(int(arrival.attributes.get("exit_code", 1))))
        else:
            if arrival.name == START_PROCESS and arrival.attributes.get(SERVES):
                self._servers.add(process_key(arrival))
            if (report := self._since(report_of_notice(arrival))) is not None:
                yield from self._of_notice(report)

    def abandoned(self, outcome: StepOutcome, why: str) -> Iterator[StepEvent]:
        """Yield the ends of all running steps: the engine has failed or was given up, and its processes with it.

        A step whose process is gone has died with it. No process will export these spans, so they are not `traced`.
        """
        for failed in self._failed.values():
            yield dataclasses.replace(failed, traced=False)
        self._failed.clear()
        now = time.time_ns()
        for step in reversed(self.running):
            died = step.process_is_gone
            parent = self._places.end(step.started.step, now)  # the step that it began in may have ended by now
            end = _end_of(step.started, now, {}) | {"traced": False, "parent": parent}
            error = EngineError(f"its process {self._exits.get(step.key, 'died')}" if died else why)
            yield EngineStepFailed(**end, outcome="died" if died else outcome, error=error)
        self._running.clear()

    def innermost(self) -> str | None:
        """Return the step that began last, in a process that is gone if there is one; None if nothing runs."""
        running = self.running
        last = ([step for step in running if step.process_is_gone] or list(running))[-1:]
        return str(last[0]) if last else None

    def first_death(self) -> str | None:
        """Return the process whose failure was reported first, and how it ended."""
        for key, ended in self._exits.items():
            return f"{self._names.get(key, 'a process')} (process {key.pid}) {ended}"
        return None

    def _since(self, report: StepReport) -> StepReport | None:
        """Return `report`; of a process that existed before it was needed, its imports since then in place of its start."""
        if report.name not in (START_PROCESS, IMPORT_ENGINE) or report.began_ns >= self._since_ns - _ROUNDING_NS:
            return report
        if report.name == IMPORT_ENGINE:
            return None
        return dataclasses.replace(report, name=IMPORT_ENGINE, began_ns=self._since_ns)

    def _of_notice(self, report: StepReport) -> Iterator[StepEvent]:
        self._learn(report)
        yield from self._start(report)
        for end in self._end(report):
            if isinstance(end, EngineStepFailed) and end.traced:
                self._failed[end.step] = end  # its process may die before it exports the span
            else:
                yield end

    def _of_span(self, report: StepReport) -> Iterator[StepEvent]:
        self._learn(report)
        if (failed := self._failed.pop(self._ids.of(report), None)) is not None:
            yield failed
        yield from self._start(report)
        yield from self._end(report)

    def _learn(self, report: StepReport) -> None:
        """Note what a report says of the engine as a whole."""
        if (model := report.attributes.get("model")) is not None:
            self.model = str(model)
        if report.name in _WORKER_STEPS:
            self._workers.add(report.key)
        if report.name == "warm_up" and report.ended_ns is not None and report.error is None:
            self._warm.add(report.key)

    def _start(self, report: StepReport) -> Iterator[StepEvent]:
        step = self._ids.of(report)
        if step in self._running or step in self._ended:
            return
        # a process is reported by its parent, with its rank, before it reports itself
        process = self._names.setdefault(report.key, report.process) if report.key.pid else report.process
        parent, began_ns = self._ids.of_parent(report), report.began_ns
        if not report.traced and parent is not None:  # its clock is that of the system, with ticks
            began_ns = self._places.after_start(parent, began_ns, _ROUNDING_NS)
        started = EngineStepStarted(
            step=step,
            parent=self._places.begin(step, parent, report.key, began_ns),
            kind=ENGINE_STEP.name,
            name=report.name,
            attributes={**report.attributes, "process": process},
            time_ns=began_ns,
            monotonic_ns=_monotonic(began_ns),
            # the exported span has the id that another step keeps
            traced=report.traced and step == report.step and self._is_exported(),
        )
        self._running[step] = RunningStep(started, process, report.key)
        yield started

    def _end(self, report: StepReport) -> Iterator[StepEvent]:
        if report.ended_ns is None or (running := self._running.pop(self._ids.of(report), None)) is None:
            return
        self._ended.add(running.started.step)
        attributes = {key: value for key, value in report.attributes.items() if key != "process"}
        end = _end_of(running.started, report.ended_ns, attributes)
        end["parent"] = self._places.end(running.started.step, report.ended_ns)
        if report.error is not None:
            yield EngineStepFailed(**end, outcome="failed", error=EngineError(report.error))
        else:
            yield EngineStepFinished(**end)


def _end_of(started: EngineStepStarted, time_ns: int, attributes: dict[str, Any]) -> dict[str, Any]:
    ended = _monotonic(time_ns)
    took = ended - started.monotonic_ns if correction_ns() else time_ns - started.time_ns  # the clock may have been set
    return {
        "step": started.step,
        "parent": started.parent,
        "kind": started.kind,
        "name": started.name,
        "attributes": {**started.attributes, **attributes},
        "time_ns": time_ns,
        "monotonic_ns": ended,
        "seconds": max(0, took) / 1e9,
        "traced": started.traced,
    }


def _monotonic(time_ns: int) -> int:
    """Return a moment of the wall clock on this machine's monotonic clock, in nanoseconds."""
    return time_ns + time.monotonic_ns() - time.time_ns()
