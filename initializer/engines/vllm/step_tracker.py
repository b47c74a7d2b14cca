"""What vLLM's processes tell of their steps, as events; each step begins once and ends once, however it is told."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import psutil

from phasebus.bus import StepEvent, StepOutcome
from phasebus.initializer.engines.protocol import (
    ENGINE_STEP,
    EngineError,
    EngineStepFailed,
    EngineStepFinished,
    EngineStepStarted,
    describe_exit,
)
from phasebus.initializer.engines.vllm.names import step_name
from phasebus.telemetry import EngineSpan, IterationsNotice, StepNotice


@dataclasses.dataclass(frozen=True, slots=True)
class RunningStep:
    """A step that has begun and not ended.

    Attributes:
        started: The event that told so.
        process: What its process is called.
        pid: The id of its process; None if that is not known.
    """

    started: EngineStepStarted
    process: str
    pid: int | None

    def __str__(self) -> str:
        where = self.process if self.pid is None else f"{self.process}, process {self.pid}"
        return f"{self.started.name} ({where})"


class StepTracker:
    """Turns notices and spans into events.

    A step's notice comes at once and its span, by way of vLLM's exporter, up to seconds later; a process without our
    plugin sends spans alone.

    Attributes:
        ready: Whether the engine has told that it answers.
    """

    def __init__(self) -> None:
        self._running: dict[str, RunningStep] = {}
        self._ended: set[str] = set()
        self._failed: dict[str, EngineStepFailed] = {}
        self._names: dict[int, str] = {}
        self._exits: dict[int, str] = {}
        self.ready = False

    @property
    def running(self) -> tuple[RunningStep, ...]:
        """The steps that have not ended, in the order they began."""
        return tuple(sorted(self._running.values(), key=lambda step: step.started.time_ns))

    def events_of(self, told: EngineSpan | StepNotice | IterationsNotice) -> Iterator[StepEvent]:
        """Yield what is new in what a process tells."""
        if isinstance(told, EngineSpan):
            yield from self._of_span(told)
        elif isinstance(told, IterationsNotice):
            return
        elif told.event == "ready":
            self.ready = True
        elif told.event == "exited":
            self._exits.setdefault(told.pid, describe_exit(int(told.attributes.get("exit_code", 1))))
        elif told.event == "started":
            yield from self._start(told.step, _fields(told), told.time_ns, told.process, told.pid)
        elif told.event == "ended":
            if told.step not in self._running:  # it began before its process had our plugin
                yield from self._start(told.step, _fields(told), told.began_ns or told.time_ns, told.process, told.pid)
            for end in self._end(told.step, told.time_ns, dict(told.attributes), told.error):
                if isinstance(end, EngineStepFailed) and end.traced:
                    self._failed[end.step] = end  # whether its process lives to export the span is still to be seen
                else:
                    yield end

    def abandoned(self, outcome: StepOutcome, why: str) -> Iterator[StepEvent]:
        """Yield the ends of all that still runs: the engine has failed or was given up, and its processes with it.

        What ran in a process that is gone has died with it. The spans are ours to make: they will export no more.
        """
        for failed in self._failed.values():
            yield dataclasses.replace(failed, traced=False)
        self._failed.clear()
        now = time.time_ns()
        for step in reversed(self.running):
            died = step.pid is not None and _is_gone(step.pid)
            end = _end_of(step.started, now, {}) | {"traced": False}
            error = EngineError(f"its process {self._exits.get(step.pid or 0, 'died')}" if died else why)
            yield EngineStepFailed(**end, outcome="died" if died else outcome, error=error)
        self._running.clear()

    def innermost(self) -> str | None:
        """Return where the engine is: the step that began last, in a process that is gone if there is one."""
        gone = [step for step in self.running if step.pid is not None and _is_gone(step.pid)]
        last = (gone or self.running)[-1:]
        return str(last[0]) if last else None

    def first_death(self) -> str | None:
        """Return which process was told first to have ended not well, and how."""
        for pid, ended in self._exits.items():
            return f"{self._names.get(pid, 'a process')} (process {pid}) {ended}"
        return None

    def _of_span(self, span: EngineSpan) -> Iterator[StepEvent]:
        if (failed := self._failed.pop(span.span, None)) is not None:
            yield failed
        if span.span in self._ended:
            return
        process = str(span.resource.get("vllm.process_name") or span.resource.get("vllm.process_kind") or "front_end")
        pid = span.resource.get("vllm.process_id")
        if span.span not in self._running:
            fields = {
                "step": span.span,
                "parent": span.parent,
                "name": step_name(span.name, span.attributes.get("code.function")),
                "attributes": {"span": span.name, "process": process, **({} if pid is None else {"pid": pid})},
                "traced": True,
            }
            yield from self._start(span.span, fields, span.start_ns, process, None if pid is None else int(pid))
        yield from self._end(span.span, span.end_ns, {}, span.error)

    def _start(
        self, step: str, fields: dict[str, Any], time_ns: int, process: str, pid: int | None
    ) -> Iterator[StepEvent]:
        if step in self._running or step in self._ended:
            return
        if pid is not None:  # a process is told of by its parent before it can say what it is called
            process = self._names.setdefault(pid, process)
        started = EngineStepStarted(kind=ENGINE_STEP.name, time_ns=time_ns, monotonic_ns=_monotonic(time_ns), **fields)
        self._running[step] = RunningStep(started, process, pid)
        yield started

    def _end(self, step: str, time_ns: int, attributes: dict[str, Any], error: str | None) -> Iterator[StepEvent]:
        running = self._running.pop(step, None)
        if running is None:
            return
        self._ended.add(step)
        end = _end_of(running.started, time_ns, attributes)
        if error is not None:
            yield EngineStepFailed(**end, outcome="failed", error=EngineError(error))
        else:
            yield EngineStepFinished(**end)


def _fields(notice: StepNotice) -> dict[str, Any]:
    attributes = {key: value for key, value in notice.attributes.items() if not key.startswith("code.")}
    return {
        "step": notice.step,
        "parent": notice.parent,
        "name": step_name(notice.name, notice.attributes.get("code.function")),
        "attributes": {"span": notice.name, "process": notice.process, "pid": notice.pid, **attributes},
        "traced": notice.traced,
    }


def _end_of(begun: EngineStepStarted, time_ns: int, attributes: dict[str, Any]) -> dict[str, Any]:
    return {
        "step": begun.step,
        "parent": begun.parent,
        "kind": begun.kind,
        "name": begun.name,
        "attributes": {**begun.attributes, **{k: v for k, v in attributes.items() if not k.startswith("code.")}},
        "time_ns": time_ns,
        "monotonic_ns": _monotonic(time_ns),
        "seconds": max(0, time_ns - begun.time_ns) / 1e9,
        "traced": begun.traced,
    }


def _is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _monotonic(time_ns: int) -> int:
    """Return a moment of the wall clock on this machine's monotonic clock, in nanoseconds."""
    return time_ns + time.monotonic_ns() - time.time_ns()
