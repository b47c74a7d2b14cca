"""Simulated starts that go on, with everything that looks like a hang and is none: for counting false alarms."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from random import Random

from phasebus.bus import AttributeValue, StepEvent, StepFinished, StepProgress, StepStarted
from phasebus.observers.stuck.activity import Activity
from phasebus.observers.stuck.finder import StuckFinder
from phasebus.observers.stuck.suspects import Findings, Patience

PATIENCE = Patience()


@dataclass(frozen=True)
class Use:
    """What a process uses in a second: CPU time, bytes, and whether it waits for a CPU."""

    cpu: float = 0.0
    io: int = 0
    runs: bool = False


@dataclass
class Work:
    """A step of a process: it waits until all of `after` have ended, then works for some seconds.

    A rank that waits uses no CPU time, or a whole CPU.
    """

    name: str
    process: str
    pid: int
    seconds: float
    use: Use
    kind: str = "engine_step"
    after: tuple[Work, ...] = ()
    dark: float = 0.0
    spins: bool = False
    progress: float = 0.0
    begun: float | None = None
    worked: float = 0.0
    ended: bool = False


@dataclass
class HealthyStart:
    """A start of some ranks, of random durations, on a machine that may be busy."""

    seed: int
    random: Random = field(init=False)
    now: float = 1000.0

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self._number = 0
        self._ids: dict[int, str] = {}
        self._used: dict[int, Activity] = {}
        self._reported: set[int] = set()
        self._next_progress = 0.0

    def findings(self) -> Iterator[Findings]:
        """Yield what the finder finds in each second of the start."""
        finder = StuckFinder(PATIENCE)
        finder.observe(StepStarted(step="f" * 16, kind="node", name="node", monotonic_ns=int(self.now * 1e9)), self.now)
        queues = self._queues()
        while any(queues):
            self.now += PATIENCE.interval * self.random.uniform(0.9, 1.3)
            for event in self._advance(queues):
                finder.observe(event, self.now)
            pids = finder.pids(self.now)
            if pids:
                samples: Mapping[int, Activity] = {pid: self._used.get(pid, Activity()) for pid in pids}
                yield finder.look(self.now, samples)

    def _queues(self) -> list[list[Work]]:
        random, ranks = self.random, self.random.choice([1, 1, 2, 4, 8])
        slow = random.choice([1, 1, 2, 5])
        own = os.getpid()
        download = Work(
            "model", "", own, random.uniform(1, 90), Use(), kind="download", progress=random.uniform(0.5, 6)
        )
        imports = Work("import_engine", "front_end", 11, random.uniform(3, 25) * slow, self._computing())
        wait = Work("wait_for_model", "front_end", 11, 0.5, Use(), after=(download,))
        core = Work("start_process", "EngineCore", 12, random.uniform(3, 20) * slow, self._computing(), after=(wait,))
        queues = [[download], [imports, wait], [core]]
        at_barrier: dict[str, tuple[Work, ...]] = {"start": (core,)}
        names = ("start_process", "init_device", "load_weights", "compile_graph", "profile_memory", "capture_graphs")
        workers: list[list[Work]] = [[] for _ in range(ranks)]
        before: tuple[Work, ...] = at_barrier["start"]
        for name in names:
            works = []
            for rank in range(ranks):
                use = self._loading() if name == "load_weights" else self._computing()
                work = Work(
                    name,
                    f"Worker_TP{rank}",
                    100 + rank,
                    random.uniform(0.2, 40) * (slow if rank == 0 else 1),
                    use,
                    after=before,
                    dark=random.choice([0.0, 0.0, random.uniform(0, 20)]),
                    spins=random.random() < 0.3,
                )
                workers[rank].append(work)
                works.append(work)
            before = tuple(works)
        return [*queues, *workers]

    def _computing(self) -> Use:
        if self.random.random() < 0.2:  # the machine is busy: it hardly gets a CPU
            return Use(cpu=self.random.uniform(0.0, 0.02), runs=True)
        return Use(cpu=self.random.uniform(0.15, 1.0))

    def _loading(self) -> Use:
        return self.random.choice(
            [Use(cpu=0.01, io=200_000), Use(cpu=0.0, io=500_000_000), Use(cpu=0.3, io=0), Use(cpu=0.02, io=60_000)]
        )

    def _advance(self, queues: list[list[Work]]) -> Iterator[StepEvent]:
        for queue in queues:
            if not queue:
                continue
            work = queue[0]
            waits = not all(each.ended for each in work.after)
            if work.begun is None:
                if work.name == "start_process" and waits:
                    continue
                if work.dark > 0:  # it works without a step
                    work.dark -= PATIENCE.interval
                    use = Use(cpu=self.random.uniform(0.2, 1.0))
                    known = work.pid in self._reported
                    self._use(work.pid if known else os.getpid(), use)  # it counts as one of its parent's
                    continue
                work.begun = self.now
                yield self._started(work)
                continue
            if waits:
                self._use(work.pid, Use(cpu=1.0, runs=True) if work.spins else Use(cpu=0.005))
                continue
            self._use(work.pid, work.use)
            work.worked += PATIENCE.interval
            if work.progress and self.now >= self._next_progress:
                self._next_progress = self.now + self.random.uniform(0.3, work.progress)
                yield StepProgress(step=self._id(work), kind=work.kind, name=work.name, done=work.worked)
            if work.worked >= work.seconds:
                work.ended = True
                queue.pop(0)
                yield StepFinished(step=self._id(work), kind=work.kind, name=work.name, seconds=work.seconds)

    def _started(self, work: Work) -> StepStarted:
        self._reported.add(work.pid)
        attributes: dict[str, AttributeValue] = {"process": work.process, "pid": work.pid} if work.process else {}
        return StepStarted(
            step=self._id(work),
            parent="f" * 16,
            kind=work.kind,
            name=work.name,
            attributes=attributes,
            monotonic_ns=int(self.now * 1e9),
        )

    def _id(self, work: Work) -> str:
        if id(work) not in self._ids:
            self._number += 1
            self._ids[id(work)] = f"{self._number:016x}"
        return self._ids[id(work)]

    def _use(self, pid: int, use: Use) -> None:
        before = self._used.get(pid, Activity())
        jitter = self.random.uniform(0.3, 1.7)
        self._used[pid] = replace(
            before, cpu=before.cpu + use.cpu * jitter, io=before.io + int(use.io * jitter), runs=use.runs
        )


def false_alarms(seeds: range) -> list[int]:
    """Return the seeds of the healthy starts in which a step was suspected."""
    return [seed for seed in seeds if any(found.suspects for found in HealthyStart(seed).findings())]
