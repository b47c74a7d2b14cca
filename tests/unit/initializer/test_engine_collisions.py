"""Workers without our plugin repeat each other's span ids: every rank's every step is published once all the same."""

from __future__ import annotations

import os
from collections import Counter
from itertools import permutations
from typing import Any

import pytest

from phasebus.bus import StepEvent
from phasebus.initializer import EngineStepFinished, EngineStepStarted
from phasebus.initializer.engines.vllm.step_tracker import StepTracker
from phasebus.telemetry import EngineSpan, StepNotice

EXECUTOR = "e" * 16
LOADING, LOADER, WEIGHTS = "1" * 16, "2" * 16, "3" * 16


def span(rank: int, name: str, step: str, parent: str, start: int, end: int) -> EngineSpan:
    """A span as vLLM exports it: both data parallel workers call themselves Worker_0."""
    return EngineSpan(
        name=name,
        trace="c" * 32,
        span=step,
        parent=parent,
        start_ns=start + rank,
        end_ns=end + rank,
        attributes={},
        resource={"vllm.process_name": "Worker_0", "vllm.process_id": str(100 + rank)},
    )


def spans_of(rank: int) -> list[EngineSpan]:
    """A worker's spans in the order they are exported: the innermost ends first."""
    return [
        span(rank, "Load weights", WEIGHTS, LOADER, 30, 40),
        span(rank, "Load model", LOADER, LOADING, 20, 50),
        span(rank, "Loading (CPU)", LOADING, EXECUTOR, 10, 60),
    ]


def events(*arrivals: EngineSpan | StepNotice) -> list[StepEvent]:
    steps = StepTracker()
    published = [event for each in arrivals for event in steps.events_of(each)]
    assert steps.running == ()
    return published


@pytest.mark.parametrize("order", sorted(set(permutations([0, 0, 0, 1, 1, 1]))))
def test_colliding_spans_of_two_workers_become_two_trees(order: tuple[int, ...]) -> None:
    waiting = [iter(spans_of(0)), iter(spans_of(1))]
    published = events(*(next(waiting[rank]) for rank in order))
    started = {event.step: event for event in published if isinstance(event, EngineStepStarted)}
    finished = [event.step for event in published if isinstance(event, EngineStepFinished)]
    assert len(started) == len(finished) == 6
    assert set(finished) == set(started)
    by_process = Counter((event.attributes["pid"], event.name) for event in started.values())
    assert by_process == {(100 + rank, n): 1 for rank in (0, 1) for n in ("load_model", "run_loader", "load_weights")}
    for event in started.values():
        parent = started.get(str(event.parent))
        if event.name == "load_model":
            assert event.parent == EXECUTOR
        else:
            assert parent is not None
            assert parent.attributes["pid"] == event.attributes["pid"]


def test_colliding_notices_are_told_apart_and_their_spans_add_nothing() -> None:
    def notice(rank: int, event: str, **fields: Any) -> StepNotice:
        process = {"pid": 100 + rank, "process": f"Worker_TP{rank}", "step": WEIGHTS, "parent": LOADER}
        return StepNotice.model_validate(
            {"event": event, "name": "Load weights", "time_ns": 30 + rank, "traced": True} | process | fields
        )

    arrivals: list[EngineSpan | StepNotice] = [notice(0, "started"), notice(1, "started")]
    arrivals += [notice(rank, "ended", time_ns=40 + rank, began_ns=30 + rank) for rank in (0, 1)]
    arrivals += [span(rank, "Load weights", WEIGHTS, LOADER, 30, 40) for rank in (0, 1)]
    published = events(*arrivals)
    assert [type(event) for event in published] == [EngineStepStarted] * 2 + [EngineStepFinished] * 2
    assert [event.attributes["process"] for event in published] == ["Worker_TP0", "Worker_TP1"] * 2


def test_process_on_another_machine_is_not_taken_for_a_dead_one_here() -> None:
    steps = StepTracker()
    gone = {"pid": 2**22 + 1, "process": "Worker_PP1", "step": WEIGHTS, "attributes": {"host": "elsewhere"}}
    arrived = StepNotice.model_validate(
        {"event": "started", "name": "Load weights", "time_ns": 1, "traced": True} | gone
    )
    (started,) = steps.events_of(arrived)
    assert started.attributes["host"] == "elsewhere"
    (step,) = steps.running
    assert not step.process_is_gone


def test_engine_with_several_api_servers_is_ready_when_all_of_them_are() -> None:
    def notice(pid: int, event: str, **attributes: Any) -> StepNotice:
        known = {"pid": pid, "process": f"ApiServer_{pid}", "step": f"{pid:016x}", "time_ns": 1}
        return StepNotice.model_validate({"event": event, "name": "start_process", "attributes": attributes} | known)

    steps = StepTracker()
    for pid in (1, 2):
        list(steps.events_of(notice(pid, "started", serves=True)))
    for pid, ready in ((1, False), (1, False), (2, True)):
        list(steps.events_of(notice(pid, "ready")))
        assert steps.ready is ready


def test_headless_engine_is_ready_when_every_worker_has_warmed_up() -> None:
    def step(pid: int, name: str, event: str = "ended") -> StepNotice:
        known = {"pid": pid, "process": f"Worker_TP{pid}", "step": os.urandom(8).hex(), "time_ns": 2, "began_ns": 1}
        function = {"code.function": "WorkerProc.__init__"}
        return StepNotice.model_validate({"event": event, "name": name, "attributes": function} | known)

    steps = StepTracker(headless=True)
    for each, ready in (
        (step(1, "Worker init", "started"), False),
        (step(2, "Worker init", "started"), False),
        (step(1, "warm_up"), False),
        (step(2, "warm_up"), True),
    ):
        list(steps.events_of(each))
        assert steps.ready is ready
