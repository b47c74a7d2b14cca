"""What processes use: CPU time and bytes, with those of the processes that they have started. Reads /proc through psutil."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import psutil

from phasebus.telemetry.own_threads import OWN_THREADS

_STOPPED: Final = (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
_GONE: Final = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
_DAEMONS: Final = frozenset({"raylet", "gcs_server"})
"""Processes of Ray that serve all others; they use some CPU time at all times."""

_MAX_PROCESSES: Final = 300
_WALK_EVERY: Final = 3
"""All processes of the machine are read once in so many samples; between them, only the known ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """What a process has used since it was created, and its state.

    Attributes:
        cpu: CPU time in seconds, with that of the processes that it has started.
        io: Bytes read and written, likewise.
        read: Bytes read, likewise.
        runs: Whether it runs, or waits for a CPU only.
        state: ``"gone"``, ``"stopped"``, ``"disk"`` (it waits for a device) or ``"alive"``.
        stopped: The processes that it has started and that are stopped: their ids and names.
        paused_ray: Processes of Ray on this machine, started by others, that serve all and are stopped.
    """

    cpu: float = 0.0
    io: int = 0
    read: int = 0
    runs: bool = False
    state: str = "alive"
    stopped: tuple[tuple[int, str], ...] = ()
    paused_ray: tuple[tuple[int, str], ...] = ()


GONE: Final = Activity(state="gone")


class ProcessSampler:
    """Samples processes of this machine. A process that is not a user's own is sampled as far as it is readable."""

    def __init__(self) -> None:
        self._known: dict[int, psutil.Process] = {}
        self._own = os.getpid()
        self._samples = 0
        self._parents: Mapping[int, int] = {}
        self._paused_ray: tuple[tuple[int, str], ...] = ()

    def sample(self, pids: Iterable[int]) -> Mapping[int, Activity]:
        """Return the activity of each of `pids`; a process that has started another of them does not count that one's."""
        wanted = set(pids)
        if self._samples % _WALK_EVERY == 0 or not wanted <= self._parents.keys():
            self._parents, self._paused_ray = _parents()
        self._samples += 1
        parents = self._parents
        families: dict[int, list[int]] = {pid: [] for pid in wanted}
        for pid in list(parents)[:10_000]:
            at = pid
            for _ in range(64):
                if at in wanted:
                    families[at].append(pid)
                    break
                at = parents.get(at, 0)
        for pid in set(self._known) - {each for family in families.values() for each in family}:
            del self._known[pid]
        return {pid: self._of(pid, family[:_MAX_PROCESSES]) for pid, family in families.items()}

    def _of(self, pid: int, family: list[int]) -> Activity:
        own = self._one(pid)
        if own.state == "gone":
            return own
        cpu, io, read, runs, stopped = own.cpu, own.io, own.read, own.runs, []
        for each in family:
            if each == pid:
                continue
            other = self._one(each)
            if other.state == "stopped":
                stopped.append((each, self._name(each)))
            if not _is_of_ray(self._name(each)):
                cpu, io, read, runs = cpu + other.cpu, io + other.io, read + other.read, runs or other.runs
        paused = self._paused_ray if pid == self._own else ()
        return Activity(
            cpu=cpu, io=io, read=read, runs=runs, state=own.state, stopped=tuple(stopped), paused_ray=paused
        )

    def _one(self, pid: int) -> Activity:
        try:
            process = self._known.get(pid)
            if process is None:
                process = self._known[pid] = psutil.Process(pid)
            elif not process.is_running():  # its id is another process's now
                return GONE
            with process.oneshot():
                status, times = process.status(), process.cpu_times()
        except psutil.NoSuchProcess:
            return GONE
        except (psutil.Error, OSError):
            return Activity()
        # a process that has ended counts as one of its parent's children
        cpu = times.user + times.system + times.children_user + times.children_system
        read, moved = _bytes_of(process)
        if pid == self._own:
            own = OWN_THREADS.used()
            cpu, read, moved = cpu - own.cpu, read - own.read, moved - own.moved
        return Activity(
            cpu=cpu,
            io=moved,
            read=read,
            runs=status == psutil.STATUS_RUNNING and pid != self._own,  # this process runs as it samples
            state=_state(status),
        )

    def _name(self, pid: int) -> str:
        try:
            return self._known[pid].name()
        except (KeyError, psutil.Error, OSError):
            return ""


def _parents() -> tuple[Mapping[int, int], tuple[tuple[int, str], ...]]:
    """Return the parent of each process of this machine, and Ray's daemons that are stopped."""
    if not os.path.isdir("/proc/1"):
        return {each.pid: each.ppid() or 0 for each in psutil.process_iter()}, ()
    parents: dict[int, int] = {}
    paused = []
    for entry in os.listdir("/proc"):  # noqa: PTH208  # called each second
        if not entry.isdecimal():
            continue
        try:
            with open(f"/proc/{entry}/stat", "rb") as file:  # noqa: PTH123
                head, _, rest = file.read().rpartition(b")")
            state, parent = rest.split()[:2]
            parents[int(entry)] = int(parent)
            name = head.partition(b"(")[2].decode(errors="replace")
            if name in _DAEMONS and state in (b"T", b"t") and os.stat(f"/proc/{entry}").st_uid == os.getuid():  # noqa: PTH116
                paused.append((int(entry), name))
        except (OSError, ValueError):
            continue
    return parents, tuple(paused)


def _is_of_ray(name: str) -> bool:
    """Return whether a process is one of Ray's own, all of which use some CPU time at all times."""
    return name in _DAEMONS or name.startswith(("ray::", "ray-"))


def _bytes_of(process: psutil.Process) -> tuple[int, int]:
    """Return the bytes that a process has read, and all that it has moved; 0 if that is not readable.

    What it reads by mapping a file counts only where it comes from a disk, and what it reads from a cache or pipe does not.
    """
    try:
        counters = process.io_counters()
    except (psutil.Error, OSError, AttributeError):
        return 0, 0
    read, written = getattr(counters, "read_chars", 0), getattr(counters, "write_chars", 0)
    return max(read, counters.read_bytes), read + written + counters.read_bytes + counters.write_bytes


def _state(status: str) -> str:
    if status in _GONE:
        return "gone"
    if status in _STOPPED:
        return "stopped"
    return "disk" if status == psutil.STATUS_DISK_SLEEP else "alive"
