"""Which steps make no progress, from their events and samples of their processes. Pure: the caller has clock and samples."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import Final

from phasebus.bus import StepEvent, StepFailed, StepFinished, StepProgress, StepStarted
from phasebus.observers.stuck.activity import Activity
from phasebus.observers.stuck.suspects import DEFAULT_PATIENCE, NOTHING, Findings, Patience, Sign, Suspect
from phasebus.telemetry.running_steps import RunningSteps, is_remote, pid_of

_STARTS: Final = frozenset({"node", "cluster", "engine_restart"})
"""The kinds of steps that contain a start. Outside of them nothing is waited for."""

_OWN_WORK: Final = frozenset({"callback", "download", "listing", "file"})
"""The kinds of steps that work in this process. Others wait for something that is mostly not seen from here."""

_WAITS: Final = frozenset({"wait_for_engine_core", "wait_for_model", "wait_for_other_nodes", "init_node"})
"""Steps that only wait for another step, here or on another node."""

_KINDS: Final = frozenset({"node", "phase", "engine", "engine_step", "engine_restart", "ray"}) | _OWN_WORK

_BUSY_SHARE: Final = 0.03
"""The share of a CPU that a process uses at least if it makes progress; threads that only poll use less."""

_OWN_BUSY_SHARE: Final = 0.15
"""Likewise for this process, which serves the page and draws the terminal meanwhile."""

_BUSY_BYTES: Final = 64 * 1024
"""The number of bytes that a process moves at least in the time of `Patience.seconds`, if it makes progress."""

_SPIN_SHARE: Final = 0.8
_LATEST_SAMPLES: Final = 4

_OVERDUE_FACTOR: Final = 3.0
_OVERDUE_SECONDS: Final = 30.0
"""A step that works is stuck all the same if it runs longer than this factor of its longest usual duration, and this many
seconds more: other work on the machine can double a duration."""

_MAX_PROCESSES: Final = 256


_Window = deque[tuple[float, Activity]]


class StuckFinder:
    """Finds steps that make no progress while the start as a whole makes none.

    Args:
        patience: How long that may take.
        usual: Returns the usual duration of a step (``seconds``, and the range from ``low`` to ``high``); None if it has
            no history.

    Attributes:
        running: The steps that run.
    """

    def __init__(
        self,
        patience: Patience = DEFAULT_PATIENCE,
        usual: Callable[[StepStarted], Mapping[str, float] | None] = lambda _: None,
    ) -> None:
        self._patience = patience
        self._usual = usual
        self.running = RunningSteps()
        self._signs: dict[str, float] = {}  # the last sign of life of each running step
        self._ended: dict[str, int] = {}  # the number of ended steps of each process
        self._windows: dict[int, _Window] = {}
        self._halted: dict[int, float] = {}
        self._processes: dict[int, str] = {}  # every process that has had a step in this start, and its name
        self._last = float("-inf")  # the time of the last event
        self._looked = float("-inf")

    def observe(self, event: StepEvent, now: float) -> None:
        """Record an event of a step that arrives at `now`, in seconds."""
        self._last = now
        if isinstance(event, StepStarted):
            self.running.start(event)
            if (pid := pid_of(event)) and len(self._processes) < _MAX_PROCESSES:
                self._processes[pid] = process_of(event)
        elif isinstance(event, StepFinished | StepFailed):
            if self.running.end(event.step) is not None:
                name = process_of(event)
                self._ended[name] = self._ended.get(name, 0) + 1
            self._signs.pop(event.step, None)
        if event.step in self.running:
            self._signs[event.step] = now
        if event.parent is not None and event.parent in self.running and not isinstance(event, StepProgress):
            self._signs[event.parent] = now

    @property
    def starts(self) -> bool:
        """Whether a start is going on."""
        return any(step.kind in _STARTS for step in self.running.all())

    def pids(self, now: float) -> Collection[int]:
        """Return the processes to sample at `now`; none while events arrive, and outside of starts."""
        if not self.starts:
            self._processes.clear()
            self._ended.clear()
            return ()
        if now - self._last < 1.5 * self._patience.interval:
            return ()
        return {os.getpid(), *self._processes}

    def look(self, now: float, samples: Mapping[int, Activity]) -> Findings:
        """Return what is found at `now`, in seconds, by new samples of the processes `pids`."""
        if now - self._looked > 4 * self._patience.interval:  # this process was stopped, or events arrived meanwhile
            self._reset()
        self._looked = now
        for pid, activity in samples.items():
            window = self._windows.setdefault(pid, deque())
            window.append((now, activity))
            while len(window) > 1 and window[1][0] <= now - self._patience.seconds:
                window.popleft()
            halts = activity.state in ("gone", "stopped") or bool(activity.stopped)
            if not halts:
                self._halted.pop(pid, None)
            else:
                self._halted.setdefault(pid, now)
        innermost = [step for step in self.running.innermost() if step.kind in _KINDS]
        if not self.starts:
            return NOTHING
        halted = self._halted_steps(now, innermost)
        overdue = [suspect for step in innermost if (suspect := self._overdue(step, now)) is not None]
        if halted or overdue:
            return Findings(suspects=(*halted, *overdue))
        idle = [step for step in innermost if step.name not in _WAITS and self._is_idle(step, now)]
        active = [
            step
            for step in innermost
            if step.name not in _WAITS and step not in idle and not self._is_silent_elsewhere(step, now)
        ]
        suspects = tuple(self._suspect(step, "idle", now) for step in idle)
        with_step = {pid_of(step) or os.getpid() for step in innermost}
        between_steps = {pid for pid in {os.getpid(), *self._processes} - with_step if self._works(pid)}
        active_now = bool(active or between_steps)  # a process may work for seconds without a step
        if not active_now or now - self._last < self._patience.seconds:
            return Findings(suspects=() if active_now else suspects)
        pids = {0 if is_remote(step) else pid_of(step) or os.getpid() for step in active} | between_steps
        if not all(self._spins(pid) for pid in pids):
            return NOTHING
        waiting = suspects or tuple(self._suspect(step, "waits", now) for step in active)
        return Findings(spinning=tuple(pids), waiting=waiting)

    def _reset(self) -> None:
        self._windows.clear()
        self._halted.clear()

    def _halted_steps(self, now: float, innermost: list[StepStarted]) -> list[Suspect]:
        """Return a step for each process that is stopped or gone: its own innermost one, or the last of its parent's."""
        found: list[Suspect] = []
        for pid, since in self._halted.items():
            if now - since < self._patience.halted:
                continue
            activity = self._windows[pid][-1][1]
            sign: Sign = "gone" if activity.state == "gone" else "stopped"
            own = [step for step in innermost if (pid_of(step) or os.getpid()) == pid and not is_remote(step)]
            running = [step for step in self.running.all() if pid_of(step) == pid]
            steps = own or running[-1:] or innermost[-1:]
            if sign == "gone" and not (own or running):
                continue  # it has no step to finish
            other = activity.stopped[0] if activity.state != "stopped" and activity.stopped else None
            if other is None and steps and not (own or running):
                other = pid, self._processes.get(pid, "")
            found += [self._suspect(step, sign, now, since=since, halted=other) for step in steps]
        return found

    def _overdue(self, step: StepStarted, now: float) -> Suspect | None:
        usual = (self._usual(step) or {}).get("high")
        seconds = now - step.monotonic_ns / 1e9
        if usual is None or seconds < _OVERDUE_FACTOR * usual + _OVERDUE_SECONDS:
            return None
        return self._suspect(step, "overdue", now)

    def _is_idle(self, step: StepStarted, now: float) -> bool:
        if is_remote(step):
            return False  # its process is not seen
        pid = pid_of(step) or os.getpid()
        seen = pid_of(step) or step.kind in _OWN_WORK or self._paused_ray()
        patience = self._patience.seconds if seen else self._patience.elsewhere
        if now - self._signs.get(step.step, now) < patience:
            return False
        return not self._is_active(pid)

    def _is_silent_elsewhere(self, step: StepStarted, now: float) -> bool:
        """Return whether a step of another machine has had no event for so long that it does not count as progress."""
        return is_remote(step) and now - self._signs.get(step.step, now) >= self._patience.elsewhere

    def _paused_ray(self) -> tuple[tuple[int, str], ...]:
        window = self._windows.get(os.getpid())
        return window[-1][1].paused_ray if window else ()

    def _is_active(self, pid: int) -> bool:
        """Return whether a process has made progress lately, or is not known for long enough."""
        window = self._windows.get(pid)
        if not window or window[-1][0] - window[0][0] < self._patience.seconds - 1.5 * self._patience.interval:
            return True
        (since, first), (until, last) = window[0], window[-1]
        share = _OWN_BUSY_SHARE if pid == os.getpid() else _BUSY_SHARE
        if last.cpu - first.cpu > share * (until - since) or last.io - first.io > _BUSY_BYTES:
            return True
        latest = list(window)[-_LATEST_SAMPLES:]
        return sum(each.runs for _, each in latest) > 1  # it waits for a CPU

    def _works(self, pid: int) -> bool:
        """Return whether a process without a step of its own is seen to make progress."""
        return pid in self._windows and self._windows[pid][-1][1].state != "gone" and self._is_active(pid)

    def _spins(self, pid: int) -> bool:
        window = self._windows.get(pid)
        if not window or window[-1][0] - window[0][0] < self._patience.seconds - 1.5 * self._patience.interval:
            return False
        (since, first), (until, last) = window[0], window[-1]
        runs = sum(each.runs for _, each in window) > _SPIN_SHARE * len(window)  # or would, if it had a CPU
        return (runs or last.cpu - first.cpu > _SPIN_SHARE * (until - since)) and last.io - first.io < _BUSY_BYTES

    def _suspect(
        self,
        step: StepStarted,
        sign: Sign,
        now: float,
        *,
        since: float | None = None,
        halted: tuple[int, str] | None = None,
    ) -> Suspect:
        pid = pid_of(step) or (0 if step.attributes.get("process") or is_remote(step) else os.getpid())
        if sign == "idle" and not pid_of(step) and step.kind not in _OWN_WORK and self._paused_ray():
            sign, halted = "stopped", self._paused_ray()[0]
        window = self._windows.get(pid)
        first, last = (window[0][1], window[-1][1]) if window else (Activity(), Activity())
        began = self._signs.get(step.step, step.monotonic_ns / 1e9) if since is None else since
        return Suspect(
            step=step,
            process=process_of(step),
            pid=pid,
            sign=sign,
            seconds=max(0.0, now - began),
            halted=halted,
            usual=(self._usual(step) or {}).get("seconds"),
            ended_steps=self._ended.get(process_of(step), 0),
            cpu=max(0.0, last.cpu - first.cpu),
            read=max(0, last.read - first.read),
        )


def process_of(step: StepEvent) -> str:
    """Return the name of the process of a step."""
    host = f" on {step.attributes['host']}" if is_remote(step) else ""
    return f"{step.attributes.get('process') or 'phasebus'}{host}"
