from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest

from phasebus.bus import StepFinished, StepProgress, StepStarted
from phasebus.observers.stuck.activity import GONE, Activity
from phasebus.observers.stuck.finder import StuckFinder
from phasebus.observers.stuck.suspects import Findings, Patience
from tests.support.healthy_starts import false_alarms

PATIENCE = Patience(seconds=8, elsewhere=60, halted=3, interval=1)
CORE, WORKER_0, WORKER_1 = 1001, 1002, 1003
OWN = os.getpid()


@dataclass
class Start:
    """A simulated start: a clock, its steps, and what its processes use in a second."""

    usual: float | None = None
    now: float = 0.0
    cpu: dict[int, float] = field(default_factory=dict)
    io: dict[int, int] = field(default_factory=dict)
    used: dict[int, Activity] = field(default_factory=dict)
    state: dict[int, str] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        usual = None if self.usual is None else {"seconds": self.usual / 2, "low": 1.0, "high": self.usual}
        self.finder = StuckFinder(PATIENCE, lambda step: usual if step.kind == "engine_step" else None)
        self.begin("node", kind="node")

    def id_of(self, name: str) -> str:
        return f"{self.numbers.setdefault(name, len(self.numbers) + 1):016x}"

    def begin(self, name: str, *, kind: str = "engine_step", inside: str | None = "node", **attributes: object) -> None:
        event = StepStarted(
            step=self.id_of(name),
            parent=self.id_of(inside) if inside and name != "node" else None,
            kind=kind,
            name=name.partition("@")[0],
            attributes=attributes,  # type: ignore[arg-type]
            monotonic_ns=int(self.now * 1e9),
        )
        self.finder.observe(event, self.now)

    def end(self, name: str) -> None:
        event = StepFinished(step=self.id_of(name), kind="engine_step", name=name, seconds=1.0)
        self.finder.observe(event, self.now)

    def work(self, pid: int, cpu: float = 1.0, io: int = 0) -> None:
        self.cpu[pid], self.io[pid] = cpu, io

    def after(self, seconds: int) -> Findings:
        found = Findings()
        for _ in range(seconds):
            self.now += 1
            for pid in (OWN, CORE, WORKER_0, WORKER_1):
                before = self.used.get(pid, Activity())
                cpu, io = self.cpu.get(pid, 0.0), self.io.get(pid, 0)
                self.used[pid] = replace(
                    before, cpu=before.cpu + cpu, io=before.io + io, state=self.state.get(pid, "alive")
                )
            if pids := self.finder.pids(self.now):
                found = self.finder.look(self.now, {pid: self._seen(pid) for pid in pids})
        return found

    def _seen(self, pid: int) -> Activity:
        return GONE if self.state.get(pid) == "gone" else self.used[pid]


def names(findings: Findings) -> list[tuple[str, int, str]]:
    return [(each.step.name, each.pid, each.sign) for each in findings.suspects]


def test_idle_process_of_the_innermost_step_is_found_within_15_seconds() -> None:
    start = Start()
    start.begin("init_engine_core", pid=CORE, process="EngineCore")
    start.begin("load_weights", inside="init_engine_core", pid=WORKER_0, process="Worker_TP0")
    start.work(WORKER_0)
    assert not start.after(30).suspects
    start.work(WORKER_0, cpu=0.01)
    assert names(start.after(11)) == [("load_weights", WORKER_0, "idle")]


def test_step_whose_process_moves_bytes_is_not_stuck() -> None:
    start = Start()
    start.begin("load_weights", pid=WORKER_0, process="Worker_TP0")
    start.work(WORKER_0, cpu=0.0, io=1_000_000)
    assert not start.after(300).suspects


def test_rank_that_waits_for_a_working_one_is_not_stuck() -> None:
    start = Start()
    start.begin("load_weights@0", pid=WORKER_0, process="Worker_TP0")
    start.begin("load_weights@1", pid=WORKER_1, process="Worker_TP1")
    start.work(WORKER_0, cpu=0.5)
    found = start.after(300)
    assert not found.suspects
    assert not found.spinning


def test_process_that_uses_a_whole_cpu_while_the_other_is_idle_may_only_wait() -> None:
    start = Start()
    start.begin("init_device@0", pid=WORKER_0, process="Worker_TP0")
    start.begin("init_device@1", pid=WORKER_1, process="Worker_TP1")
    start.work(WORKER_0, cpu=1.0)
    found = start.after(12)
    assert found.spinning == (WORKER_0,)
    assert [each.pid for each in found.waiting] == [WORKER_1]


def test_stopped_process_is_found_although_another_one_works() -> None:
    start = Start()
    start.begin("load_weights@0", pid=WORKER_0, process="Worker_TP0")
    start.begin("load_weights@1", pid=WORKER_1, process="Worker_TP1")
    start.work(WORKER_0)
    start.state[WORKER_1] = "stopped"
    assert names(start.after(6)) == [("load_weights", WORKER_1, "stopped")]


def test_process_that_is_gone_is_found_while_its_step_runs() -> None:
    start = Start()
    start.begin("load_weights", pid=WORKER_0, process="Worker_TP0")
    start.state[WORKER_0] = "gone"
    assert names(start.after(6)) == [("load_weights", WORKER_0, "gone")]
    start.end("load_weights")
    assert not start.after(6).suspects


def test_callback_that_blocks_is_found_in_this_process() -> None:
    start = Start()
    start.begin("pre_download", kind="phase")
    start.begin("pin_to_rack", kind="callback", inside="pre_download")
    assert names(start.after(12)) == [("pin_to_rack", OWN, "idle")]


@pytest.mark.parametrize("name", ["wait_for_engine_core", "wait_for_model", "wait_for_other_nodes"])
def test_step_that_only_waits_for_another_is_never_found(name: str) -> None:
    start = Start()
    start.begin(name, kind="callback")
    assert not start.after(300).suspects


def test_phase_that_waits_for_ray_is_given_a_minute() -> None:
    start = Start()
    start.begin("placement_group", kind="phase")
    assert not start.after(50).suspects
    assert names(start.after(20)) == [("placement_group", OWN, "idle")]


def test_paused_raylet_of_another_start_is_named_once_the_step_is_idle() -> None:
    start = Start()
    start.begin("placement_group", kind="phase")
    start.used[OWN] = Activity(paused_ray=((77, "raylet"),))
    found = start.after(12)
    assert names(found) == [("placement_group", OWN, "stopped")]
    assert found.suspects[0].halted == (77, "raylet")


def test_step_of_another_machine_is_not_judged_by_a_process_here() -> None:
    start = Start()
    start.begin("load_weights", pid=WORKER_0, process="Worker_TP0", host="another-machine")
    assert not start.after(300).suspects


def test_progress_events_keep_a_download_alive() -> None:
    start = Start()
    start.begin("download", kind="download")
    for _ in range(10):
        assert not start.after(5).suspects
        start.finder.observe(StepProgress(step=start.id_of("download"), kind="download", name="m", done=1), start.now)
    assert names(start.after(12)) == [("download", OWN, "idle")]


def test_step_that_runs_much_longer_than_usual_is_found_although_it_works() -> None:
    start = Start(usual=20.0)
    start.begin("compile_graph", pid=WORKER_0, process="Worker")
    start.work(WORKER_0)
    assert not start.after(85).suspects
    found = start.after(10)
    assert names(found) == [("compile_graph", WORKER_0, "overdue")]
    assert found.suspects[0].usual == 10


def test_pause_of_this_process_is_not_taken_for_idleness() -> None:
    start = Start()
    start.begin("load_weights", pid=WORKER_0, process="Worker_TP0")
    start.work(WORKER_0)
    start.after(5)
    start.now += 100  # the machine was suspended
    start.work(WORKER_0, cpu=0.0)
    assert not start.after(3).suspects


def test_process_that_waits_for_a_cpu_is_not_stuck() -> None:
    start = Start()
    start.begin("load_weights", pid=WORKER_0, process="Worker_TP0")
    start.used[WORKER_0] = Activity(runs=True)
    assert not start.after(60).suspects


def test_nothing_is_sampled_outside_of_a_start() -> None:
    start = Start()
    start.end("node")
    start.begin("epoch 1", kind="training", inside=None)
    start.after(5)
    assert not start.finder.pids(start.now + 10)


def test_sampled_processes_are_those_of_running_steps_of_this_machine() -> None:
    start = Start()
    start.begin("load_weights", pid=WORKER_0, process="Worker_TP0")
    start.begin("init_device", pid=5, process="Worker_TP1", host="another-machine")
    start.now += 5
    expected: Mapping[int, object] = {OWN: 0, WORKER_0: 0}
    assert set(start.finder.pids(start.now)) == set(expected)


def test_healthy_starts_with_waiting_ranks_and_slow_disks_raise_no_alarm() -> None:
    assert false_alarms(range(5)) == []


def test_process_that_works_between_its_steps_keeps_a_waiting_one_from_being_suspected() -> None:
    start = Start()
    start.begin("init_executor", pid=CORE, process="EngineCore")
    start.begin("init_device", inside="init_executor", pid=WORKER_0, process="Worker_TP0")
    start.end("init_device")
    start.work(WORKER_0, cpu=0.3)
    assert not start.after(120).suspects
    start.work(WORKER_0, cpu=0.0)
    assert names(start.after(12)) == [("init_executor", CORE, "idle")]


def test_stopped_process_without_a_step_is_named_with_the_step_that_waits_for_it() -> None:
    start = Start()
    start.begin("init_executor", pid=CORE, process="EngineCore")
    start.begin("init_device", inside="init_executor", pid=WORKER_0, process="Worker_TP0")
    start.end("init_device")
    start.state[WORKER_0] = "stopped"
    found = start.after(6)
    assert [each.step.name for each in found.suspects] == ["init_executor"]
    assert found.suspects[0].halted == (WORKER_0, "Worker_TP0")


def test_ranks_that_all_spin_without_an_event_may_only_wait() -> None:
    start = Start()
    start.begin("init_device@0", pid=WORKER_0, process="Worker_TP0")
    start.begin("init_device@1", pid=WORKER_1, process="Worker_TP1")
    start.work(WORKER_0)
    start.work(WORKER_1)
    found = start.after(12)
    assert not found.suspects
    assert set(found.spinning) == {WORKER_0, WORKER_1}
    assert [each.sign for each in found.waiting] == ["waits", "waits"]


def test_steps_of_callers_that_are_not_known_leave_nothing_behind() -> None:
    finder = StuckFinder(PATIENCE)
    for number in range(1, 100):
        step, caller = f"{number:016x}", f"{number + 1000:016x}"
        finder.observe(StepStarted(step=step, parent=caller, kind="request", name="r"), 1.0)
        finder.observe(StepFinished(step=step, parent=caller, kind="request", name="r", seconds=1.0), 2.0)
        finder.observe(StepProgress(step=step, kind="request", name="r", done=1), 3.0)
    assert finder._signs == {}
    assert finder.running.all() == []
