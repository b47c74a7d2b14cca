"""Watching the steps of a start while they run: reminders of long ones, and which one the start hangs in."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from phasebus.bus import StepEvent, StepStarted
from phasebus.observers.stuck.activity import Activity, ProcessSampler
from phasebus.observers.stuck.evidence import only_wait, stuck_steps
from phasebus.observers.stuck.finder import StuckFinder
from phasebus.observers.stuck.suspects import DEFAULT_PATIENCE, Findings, Patience, Suspect
from phasebus.telemetry.formatting import format_duration
from phasebus.telemetry.own_threads import OWN_THREADS
from phasebus.telemetry.redaction import redact_name
from phasebus.telemetry.span_names import span_name
from phasebus.telemetry.stuck import MAX_STEPS, StuckStep, StuckSteps

logger = logging.getLogger("phasebus.startup")

_NICENESS: Final = 10
_SPIN_CHECK_FACTOR: Final = 3.0
"""The time between two looks at whether busy processes only wait grows by this factor: a look interrupts them."""

_REFRESH: Final = 30.0
"""The time after which the evidence of a step that is still stuck is collected again, in seconds; it doubles."""


class Watchdog:
    """Names the step that a start hangs in, with evidence, and warns of innermost steps that run for long.

    It runs in a thread of its own with a low priority, and samples processes only while no event arrives.

    Args:
        seconds: The time after which a running step is logged, and logged again.
        logger: The logger; ``phasebus.startup`` by default.
        level: The level of the messages about steps that run for long.
        report: Called in the watchdog's thread when the steps that are stuck have changed; each call within a
            `StuckSteps` of none means that the start goes on.
        logs: Files that the output of the start's processes goes to.
        usual: Returns the usual duration of a step (``seconds``, and the range from ``low`` to ``high``); None if it has
            no history.
        patience: How long a step may show no progress.
        sample: Returns the activity of processes; by default those of this machine.
    """

    def __init__(
        self,
        seconds: float = 60.0,
        *,
        logger: logging.Logger = logger,
        level: int = logging.WARNING,
        report: Iterable[Callable[[StuckSteps], Any]] = (),
        logs: Iterable[Path] = (),
        usual: Callable[[StepStarted], Mapping[str, float] | None] = lambda _: None,
        patience: Patience = DEFAULT_PATIENCE,
        sample: Callable[[Iterable[int]], Mapping[int, Activity]] | None = None,
    ) -> None:
        self._seconds = seconds
        self._logger = logger
        self._level = level
        self._reports = tuple(report)
        self._logs = tuple(logs)
        self._patience = patience
        self._sample = sample or ProcessSampler().sample
        self._logged: dict[str, float] = {}
        self._lock = threading.Lock()
        self._finder = StuckFinder(patience, usual)
        self._stuck = StuckSteps()
        self._suspected: frozenset[tuple[str, str]] = frozenset()
        self._next_refresh = 0.0
        self._refresh = _REFRESH
        self._next_spin_check = 0.0
        self._spin_pause = patience.seconds
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="phasebus watchdog", daemon=True)

    def observe(self, event: StepEvent) -> None:
        """Record an event of a step."""
        with self._lock:
            self._finder.observe(event, time.monotonic())
        if not self._thread.ident:
            self._thread.start()

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()

    def _watch(self) -> None:
        if sys.platform == "linux":  # where a thread has a priority of its own
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        with OWN_THREADS.counted():
            self._watch_until_closed()

    def _watch_until_closed(self) -> None:
        while not self._closed.wait(min(self._patience.interval, self._seconds / 4)):
            self._remind()
            try:
                self._look()
            except Exception:
                self._logger.exception("the search for stuck steps has failed; the start goes on without it")
                self._look = lambda: None  # type: ignore[method-assign]

    def _remind(self) -> None:
        now = time.monotonic()
        for step in self._overdue(now):
            name = redact_name(span_name(step.kind, step.name))
            seconds = format_duration(now - step.monotonic_ns / 1e9)
            self._logger.log(self._level, "%s has been running for %s", name, seconds, extra={"reminder": True})

    def _look(self) -> None:
        now = time.monotonic()
        with self._lock:
            pids = self._finder.pids(now)
        if not pids:  # events arrive: what they end is no longer stuck
            self._update(self._still_running(self._stuck.steps))
            return
        samples = self._sample(pids)
        with self._lock:
            findings = self._finder.look(now, samples)
        suspects = findings.suspects or self._spinning(findings)
        if not suspects:
            self._update(StuckSteps())
        elif self._steps_of(suspects) != self._suspected or now >= self._next_refresh:
            stuck = self._still_running(stuck_steps(suspects, self._logs, awaits=self._patience.elsewhere))
            self._update(stuck)
            self._suspected = self._steps_of(suspects)
            self._next_refresh = time.monotonic() + (self._refresh if stuck.steps else self._patience.seconds)
            self._refresh *= 2 if stuck.steps else 1

    def _spinning(self, findings: Findings) -> tuple[Suspect, ...]:
        """Return the idle suspects if all busy processes only wait as well: a barrier may use a whole CPU."""
        if not findings.spinning:
            return ()
        if self._steps_of(findings.waiting) == self._suspected:
            return findings.waiting
        now = time.monotonic()
        if now < self._next_spin_check:
            return ()
        self._next_spin_check = now + self._spin_pause
        self._spin_pause *= _SPIN_CHECK_FACTOR
        return findings.waiting if only_wait(findings.spinning, self._patience.interval) else ()

    @staticmethod
    def _steps_of(suspects: tuple[Suspect, ...]) -> frozenset[tuple[str, str]]:
        return frozenset((each.step.step, each.sign) for each in suspects)

    def _still_running(self, steps: Sequence[StuckStep]) -> StuckSteps:
        return StuckSteps(steps=tuple(step for step in steps if step.step in self._finder.running)[:MAX_STEPS])

    def _update(self, stuck: StuckSteps) -> None:
        """Report the steps that are stuck, if that is news."""
        before, self._stuck = self._stuck, stuck
        if not stuck.steps:
            self._suspected, self._refresh = frozenset(), _REFRESH
        if stuck.steps == before.steps or self._closed.is_set():
            return
        if not stuck.steps:
            self._logger.log(self._level, "%s is no longer stuck", before.steps[0].name)
        elif not before.steps or before.steps[0].step != stuck.steps[0].step:
            self._logger.warning("%s", stuck.steps[0].block())
        for report in self._reports:
            try:
                report(stuck)
            except Exception:
                self._logger.exception("a report of a stuck step has failed")

    def _overdue(self, now: float) -> list[StepStarted]:
        """Return the innermost steps that are due to be logged, and note that they are."""
        innermost = self._finder.running.innermost()
        overdue = [
            event
            for event in innermost
            if now - self._logged.get(event.step, event.monotonic_ns / 1e9) >= self._seconds
        ]
        self._logged = {step: at for step, at in self._logged.items() if step in self._finder.running}
        self._logged.update({event.step: now for event in overdue})
        return overdue
