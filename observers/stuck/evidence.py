"""The evidence of why a step is stuck, and the order of the suspects: the one that the others wait for comes first."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from phasebus.bus import CALLBACK
from phasebus.observers.stuck.output import last_lines, no_space
from phasebus.observers.stuck.sockets import sockets_of
from phasebus.observers.stuck.stacks import stacks_of
from phasebus.observers.stuck.suspects import Suspect
from phasebus.observers.stuck.waits import Wait, wait_of
from phasebus.telemetry.formatting import format_duration, format_title
from phasebus.telemetry.own_threads import OWN_THREADS
from phasebus.telemetry.stuck import StuckStep

T = TypeVar("T")

_SECONDS: Final = 6.0
"""The longest that collecting one sort of evidence may take: a file system that hangs stops the thread that reads it."""

_MEMORY_EVENTS: Final = Path("/sys/fs/cgroup/memory.events")
_MAX_SUSPECTS: Final = 8
_SIGNS: Final = ("gone", "stopped", "overdue", "idle", "waits")
_SPIN_LOOKS: Final = 4
_WAITS_FOR: Final = {"peer": 1, "process": 2}
"""By the kind of a wait: how far a process that waits in this way is from the cause."""


def stuck_steps(
    suspects: Sequence[Suspect], logs: Iterable[Path] = (), *, awaits: float = 0.0, now: float | None = None
) -> tuple[StuckStep, ...]:
    """Return the suspects with their evidence, the one that the others wait for first.

    A process that is gone or stopped comes before one that waits, and a process that waits for others comes last. Of
    several that wait for one another, the one that has ended the fewest steps has not arrived where the others are.

    Args:
        suspects: The steps that make no progress.
        logs: Files that the output of the processes goes to.
        awaits: How long a callback may wait while the event loop goes on, in seconds; it is left out until then.
        now: The present moment on the monotonic clock, in seconds.
    """
    logs = tuple(logs)
    found = [(each, _Evidence(each, logs)) for each in suspects[:_MAX_SUSPECTS]]
    found = [each for each in found if each[0].seconds >= awaits or not _awaits(*each)]
    found.sort(key=lambda each: _order(*each))
    all_wait = all(evidence.waits_for_others for _, evidence in found)
    now = time.monotonic() if now is None else now
    return tuple(_stuck(suspect, evidence, now, all_wait=all_wait) for suspect, evidence in found)


def only_wait(pids: Collection[int], pause: float) -> bool:
    """Return whether the main threads of processes that use a CPU wait for other processes all the same.

    A collective operation waits for a moment in a healthy start as well: several looks in a row must see one.

    Args:
        pids: The processes.
        pause: The time between two looks, in seconds.
    """
    for look in range(_SPIN_LOOKS):
        if look:
            time.sleep(pause)
        for pid in pids:
            wait = wait_of(_within(lambda pid=pid: stacks_of(pid), ()))  # type: ignore[misc]
            if wait is None or not wait.is_for_others:
                return False
    return True


class _Evidence:
    """What is known of the process at fault: that of the step, or the stopped one that it has started."""

    def __init__(self, suspect: Suspect, logs: Sequence[Path]) -> None:
        pid = suspect.halted[0] if suspect.halted is not None else suspect.pid
        ended = suspect.sign == "gone"
        seen = 0 if ended else pid  # the process to look at; 0 for none
        self.stacks: Sequence[str] = _within(lambda: stacks_of(seen), ()) if seen else ()
        self.sockets: Sequence[str] = _within(lambda: sockets_of(seen), ()) if seen else ()
        self.log: Sequence[str] = ()
        if pid != os.getpid():
            self.log = _within(lambda: last_lines(pid, logs, ended=ended), ())
        self.wait: Wait | None = _within(lambda: wait_of(self.stacks), None)
        self.kernel = _within(lambda: _kernel_function(seen), "") if seen else ""

    @property
    def waits_for_others(self) -> bool:
        """Whether the process waits for others of the engine."""
        return self.wait is not None and self.wait.is_for_others


def _awaits(suspect: Suspect, evidence: _Evidence) -> bool:
    """Return whether a callback waits for something without blocking the event loop, as for a service to be up."""
    is_callback = suspect.step.kind == CALLBACK.name and suspect.sign == "idle"
    return is_callback and evidence.wait is not None and evidence.wait.kind == "event loop"


def _order(suspect: Suspect, evidence: _Evidence) -> tuple[int, int, int, int]:
    """Return the key that suspects are sorted by: a front end waits for its core, that for its workers, those for peers."""
    waits = _WAITS_FOR.get(evidence.wait.kind, 0) if evidence.wait is not None else 0
    arrived = suspect.ended_steps if waits == _WAITS_FOR["peer"] else 0
    return _SIGNS.index(suspect.sign), waits, arrived, -suspect.step.monotonic_ns


def _stuck(suspect: Suspect, evidence: _Evidence, now: float, *, all_wait: bool) -> StuckStep:
    step = suspect.step
    pid, process = suspect.halted or (suspect.pid, suspect.process)
    return StuckStep(
        step=step.step,
        name=format_title(step.kind, step.name),
        process=process,
        pid=pid,
        running_seconds=max(0.0, now - step.monotonic_ns / 1e9),
        usual_seconds=suspect.usual,
        reason="; ".join(_reasons(suspect, evidence, pid, all_wait=all_wait)),
        stacks=evidence.stacks,
        log=evidence.log,
        sockets=evidence.sockets,
        cpu_seconds=suspect.cpu,
        read_bytes=suspect.read,
    )


def _reasons(suspect: Suspect, evidence: _Evidence, pid: int, *, all_wait: bool) -> Iterable[str]:
    seconds = format_duration(suspect.seconds)
    if suspect.sign == "gone":
        yield f"its process has ended, {seconds} ago, and the start still waits for it{_killed_for_memory()}"
    elif suspect.sign == "stopped":
        yield f"the process is stopped (SIGSTOP, or a debugger); `kill -CONT {pid}` continues it"
    elif suspect.sign == "overdue":
        yield "it runs much longer than usual"
    elif suspect.sign == "waits":
        yield f"no event for {seconds}, and all of its CPU time goes into waiting"
    else:
        yield f"no event, no CPU time and no data for {seconds}"
    if (line := no_space(evidence.log)) is not None:
        yield f"a disk is full: {line}"
    if evidence.wait is not None and evidence.wait.kind != "event loop":
        yield f"its main thread {evidence.wait.text}"
    elif evidence.kernel:
        yield f"it waits in the kernel, in {evidence.kernel}"
    if suspect.sign in ("idle", "waits") and all_wait:
        yield "no process here has work: has every rank been started, and can the ranks reach one another?"


def _killed_for_memory() -> str:
    with contextlib.suppress(OSError, ValueError):
        for line in _MEMORY_EVENTS.read_text(encoding="ascii").splitlines():
            name, _, number = line.partition(" ")
            if name == "oom_kill" and int(number):
                return f"; the kernel has ended {number} processes here because memory ran out"
    return ""


def _kernel_function(pid: int) -> str:
    """Return the function of the kernel that a process waits in; "" if the kernel does not show it."""
    with contextlib.suppress(OSError):
        name = Path(f"/proc/{pid}/wchan").read_text(encoding="ascii").strip()
        return "" if name == "0" else name
    return ""


def _within(collect: Callable[[], T], otherwise: T) -> T:
    """Return what `collect` returns within `_SECONDS`; `otherwise` if it fails, or takes longer."""
    results: list[T] = []

    def run() -> None:
        with contextlib.suppress(Exception), OWN_THREADS.counted():  # evidence is never worth a failure
            results.append(collect())

    thread = threading.Thread(target=run, name="phasebus evidence", daemon=True)
    thread.start()
    thread.join(_SECONDS)
    return results[0] if results else otherwise
