from __future__ import annotations

import dataclasses
import os
import time
from types import SimpleNamespace
from typing import Any

import anyio.to_thread
import pytest

from phasebus.bus import Bus, StepEvent
from phasebus.initializer import EngineError, EngineStepFailed, EngineStepFinished, EngineStepStarted
from phasebus.initializer.engines.vllm import event_clock, step_tracker
from phasebus.initializer.engines.vllm.event_clock import on_event_clock
from phasebus.initializer.engines.vllm.inside import hooks
from phasebus.initializer.engines.vllm.names import OTHER, OWN_STEPS, STEP_OF_SPAN, step_name
from phasebus.initializer.engines.vllm.step_tracker import StepTracker
from phasebus.initializer.engines.vllm.steps import relayed_steps
from phasebus.telemetry import EngineSpan, StepNotice
from phasebus.telemetry.relay import Relay
from tests.support.waiting import wait_until

STEP, PARENT = "a" * 16, "b" * 16
GONE = 2**22 + 1
"""A process id that no process has: Linux ends before it."""


def span(
    name: str = "Load weights", *, error: str | None = None, pid: int | None = None, **attributes: str
) -> EngineSpan:
    pid = os.getpid() if pid is None else pid
    return EngineSpan(
        name=name,
        trace="c" * 32,
        span=STEP,
        parent=PARENT,
        start_ns=1_000_000_000,
        end_ns=3_000_000_000,
        attributes=attributes,
        resource={"vllm.process_name": "Worker_0", "vllm.process_id": str(pid)},
        error=error,
    )


def notice(event: str, **fields: Any) -> StepNotice:
    given = {"step": STEP, "parent": PARENT, "name": "Load weights", "pid": os.getpid(), "process": "Worker_0"}
    if event == "ended":
        given |= {"time_ns": 3_000_000_000, "began_ns": 1_000_000_000}
    return StepNotice.model_validate({"event": event, "time_ns": 1_000_000_000, "traced": True} | given | fields)


def test_span_without_notices_becomes_a_started_and_a_finished_step() -> None:
    begun, ended = StepTracker().events_of(span(pid=7))
    assert isinstance(begun, EngineStepStarted)
    assert isinstance(ended, EngineStepFinished)
    assert begun.name == ended.name == "load_weights"
    assert (begun.time_ns, ended.time_ns, ended.seconds) == (1_000_000_000, 3_000_000_000, 2.0)
    assert begun.attributes == {"vllm.span": "Load weights", "process": "Worker_0", "pid": 7}
    assert not begun.traced  # the observer of spans makes its span


def test_span_of_a_step_that_notices_reported_adds_no_event() -> None:
    steps = StepTracker()
    (begun,) = steps.events_of(notice("started"))
    assert isinstance(begun, EngineStepStarted)
    assert [str(step) for step in steps.running] == [f"load_weights (Worker_0, process {os.getpid()})"]
    (ended,) = steps.events_of(notice("ended", attributes={"bytes": 5}))
    assert isinstance(ended, EngineStepFinished)
    assert (ended.seconds, ended.attributes["bytes"]) == (2.0, 5)
    assert list(steps.events_of(span())) == []
    assert list(steps.events_of(notice("started"))) == []


def test_step_has_its_duration_although_the_clock_is_set_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    hour, steps = 3600 * 10**9, StepTracker()
    wall_ns, steady_ns = time.time_ns(), time.monotonic_ns()
    clocks = SimpleNamespace(time_ns=lambda: wall_ns, monotonic_ns=lambda: steady_ns)
    monkeypatch.setattr(step_tracker, "time", clocks)
    (begun,) = steps.events_of(notice("started", time_ns=wall_ns))
    clocks.time_ns, clocks.monotonic_ns = lambda: wall_ns + hour + 10**9, lambda: steady_ns + 10**9
    monkeypatch.setattr(step_tracker, "correction_ns", lambda: -hour)
    monkeypatch.setattr(event_clock, "correction_ns", lambda: -hour)
    (ended,) = steps.events_of(notice("ended", began_ns=wall_ns, time_ns=wall_ns + hour + 10**9))
    assert isinstance(ended, EngineStepFinished)
    assert ended.seconds == 1.0
    assert on_event_clock(ended).time_ns == begun.time_ns + 10**9


def test_end_without_a_start_publishes_the_start_first() -> None:
    begun, ended = StepTracker().events_of(notice("ended", began_ns=1, time_ns=5))
    assert isinstance(begun, EngineStepStarted)
    assert (begun.time_ns, ended.time_ns) == (1, 5)


def test_failed_span_becomes_a_failed_step_with_its_error() -> None:
    _, ended = StepTracker().events_of(span(error="out of memory"))
    assert isinstance(ended, EngineStepFailed)
    assert str(ended.error) == "out of memory"


@pytest.mark.parametrize("exported", [True, False])
def test_failed_step_is_traced_only_if_its_process_exported_the_span_elsewhere(exported: bool) -> None:
    steps = StepTracker(is_exported=lambda: True)
    begun = list(steps.events_of(notice("ended", error="out of memory")))
    assert [type(event) for event in begun] == [EngineStepStarted]
    (ended,) = steps.events_of(span(error="out of memory")) if exported else steps.abandoned("failed", "it failed")
    assert isinstance(ended, EngineStepFailed)
    assert str(ended.error) == "out of memory"
    assert ended.traced is exported
    assert list(steps.abandoned("failed", "it failed")) == []


@pytest.mark.parametrize(("created", "name", "began"), [(50, "import_engine", 90), (91, "start_process", 91)])
def test_process_that_existed_before_it_was_needed_has_imports_and_no_start(
    created: int, name: str, began: int
) -> None:
    second = 10**9
    steps = StepTracker(since_ns=90 * second)
    start = {"name": "start_process", "traced": False, "parent": None}
    imports = {"name": "import_engine", "traced": False, "step": "d" * 16, "parent": STEP}
    ended = {"began_ns": created * second, "time_ns": 100 * second}
    arrivals = [
        notice("started", **start, time_ns=created * second),
        notice("ended", **imports | ended),
        notice("ended", **start | ended),
    ]
    published = [event for each in arrivals for event in steps.events_of(each)]
    assert (published[0].name, published[0].time_ns) == (name, began * second)
    assert [event.name for event in published if isinstance(event, EngineStepFinished)][-1] == name
    assert len(published) == (2 if name == "import_engine" else 4)
    assert steps.running == ()


def test_steps_of_a_dead_process_died_and_all_others_failed_with_the_engine() -> None:
    steps = StepTracker()
    list(steps.events_of(notice("started", step="1" * 16, name="Executor init", process="EngineCore")))
    list(steps.events_of(notice("started", pid=GONE, time_ns=2_000_000_000)))
    assert steps.innermost() == f"load_weights (Worker_0, process {GONE})"
    inner, outer = steps.abandoned("failed", "the worker is gone")
    assert isinstance(inner, EngineStepFailed)
    assert isinstance(outer, EngineStepFailed)
    assert (inner.name, inner.outcome, str(inner.error)) == ("load_weights", "died", "its process died")
    assert (outer.name, outer.outcome, str(outer.error)) == ("init_executor", "failed", "the worker is gone")
    assert not inner.traced
    assert steps.running == ()


@pytest.mark.parametrize(
    ("name", "function", "step"),
    [
        ("Worker init", "WorkerProc.__init__", "init_worker"),
        ("Worker init", "WorkerWrapperBase.init_worker", "create_worker"),
        ("Capture model", None, "capture_graphs"),
        ("profile_memory", "CPUWorker.determine_available_memory", "profile_memory"),
        ("Something new", None, OTHER),
    ],
)
def test_span_name_and_function_determine_the_step_name(name: str, function: str | None, step: str) -> None:
    assert step_name(name, function) == step


def test_every_step_of_the_plugin_is_in_the_table_of_names() -> None:
    assert {step for _, _, step in hooks.UNTRACED_FUNCTIONS} <= OWN_STEPS
    assert not OWN_STEPS & set(STEP_OF_SPAN)


@pytest.mark.anyio
async def test_spans_of_steps_are_not_forwarded_also_when_they_arrive_late() -> None:
    relay = Relay()
    later = dataclasses.replace(span(), span="9" * 16)
    seen: list[StepEvent] = []
    try:
        async with Bus() as bus:
            bus.subscribe(StepEvent, seen.append)
            async with relayed_steps(bus, relay):
                (claim,) = relay._claims
                relay.publish(notice("started"))
                relay.publish(notice("ended"))
                unknown = dataclasses.replace(span(name="Tune kernels"), span="8" * 16)
                assert claim(unknown)
                relay.publish(unknown)
            assert claim(span())
            assert not claim(later)
    finally:
        relay.close()
    assert [event.name for event in seen] == ["load_weights", "load_weights", "other", "other"]
    assert seen[-1].attributes["span_name"] == "Tune kernels"


@pytest.mark.anyio
async def test_notices_during_the_start_become_events() -> None:
    relay = Relay()
    seen: list[StepEvent] = []
    relay.start()
    try:
        async with Bus() as bus:
            bus.subscribe(StepEvent, seen.append)
            async with relayed_steps(bus, relay):
                for listener in relay._listeners:
                    listener(notice("started"))
                    listener(notice("ended"))
            assert [type(event) for event in seen] == [EngineStepStarted, EngineStepFinished]
            assert relay._listeners == []
    finally:
        relay.close()


@pytest.mark.anyio
async def test_an_engine_that_reports_nothing_is_not_waited_for() -> None:
    relay = Relay()
    try:
        with anyio.fail_after(60):
            async with Bus() as bus, relayed_steps(bus, relay, final_seconds=600.0):
                pass
    finally:
        relay.close()


@pytest.mark.anyio
async def test_running_steps_fail_before_the_error_of_the_engine_is_raised() -> None:
    relay = Relay()
    seen: list[StepEvent] = []
    relay.start()
    try:
        async with Bus() as bus:
            bus.subscribe(StepEvent, seen.append)
            with pytest.raises(EngineError, match="boom"):  # noqa: PT012  # it is raised inside, on purpose
                async with relayed_steps(bus, relay) as steps:
                    relay._listeners[0](notice("started"))
                    await anyio.to_thread.run_sync(wait_until, lambda: steps.running, "the step runs")
                    raise EngineError("boom")
    finally:
        relay.close()
    assert isinstance(seen[-1], EngineStepFailed)
    assert (seen[-1].outcome, str(seen[-1].error)) == ("failed", "boom")
