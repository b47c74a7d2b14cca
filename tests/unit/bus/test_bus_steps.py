from __future__ import annotations

from typing import Any

import anyio
import pytest

from phasebus.bus import (
    Bus,
    CallbackFailed,
    CallbackFinished,
    CallbackStarted,
    Context,
    Step,
    StepEvent,
    StepFailed,
    StepFinished,
    StepKind,
    StepProgress,
    StepStarted,
    current_step,
    phase_event,
)

pytestmark = pytest.mark.anyio

WORK = StepKind("work")


def collecting(bus: Bus) -> list[Any]:
    events: list[Any] = []
    bus.subscribe(StepEvent, events.append)
    return events


async def test_step_publishes_start_progress_and_one_end() -> None:
    bus = Bus()
    events = collecting(bus)
    async with bus.step(WORK, "a", attributes={"size": 3}) as step:
        assert current_step() is step
        await step.progress(1, 3, "By")
        step.attributes["found"] = True
    assert current_step() is None
    started, progress, finished = events
    assert [type(event) for event in events] == [StepStarted, StepProgress, StepFinished]
    assert {event.step for event in events} == {step.id}
    assert (started.kind, started.name, started.attributes) == ("work", "a", {"size": 3})
    assert (progress.done, progress.total, progress.unit) == (1, 3, "By")
    assert finished.attributes == {"size": 3, "found": True}
    assert finished.seconds >= 0
    assert step.seconds >= finished.seconds


async def test_a_step_within_a_step_belongs_to_it() -> None:
    bus = Bus()
    events = collecting(bus)
    async with bus.step(WORK, "outer") as outer, bus.step(WORK, "inner"), bus.step(WORK, "own", parent="0" * 16):
        pass
    parents = {event.name: event.parent for event in events}
    assert parents == {"outer": None, "inner": outer.id, "own": "0" * 16}


async def _fail(step: Step, scope: anyio.CancelScope) -> None:
    raise ValueError("no")


async def _time_out(step: Step, scope: anyio.CancelScope) -> None:
    raise TimeoutError


async def _cancel(step: Step, scope: anyio.CancelScope) -> None:
    scope.cancel()
    await anyio.sleep_forever()


@pytest.mark.parametrize(("end", "outcome"), [(_fail, "failed"), (_time_out, "timed_out"), (_cancel, "cancelled")])
async def test_failed_step_publishes_its_outcome_and_reraises(end: Any, outcome: str) -> None:
    bus = Bus()
    events = collecting(bus)
    errors: list[BaseException] = []
    with anyio.CancelScope() as scope:
        try:
            async with bus.step(WORK, "a") as step:
                await end(step, scope)
        except BaseException as error:
            errors.append(error)
            if not isinstance(error, Exception):
                raise
    assert [type(event) for event in events] == [StepStarted, StepFailed]
    assert events[-1].outcome == outcome
    assert events[-1].error is errors[0]


async def test_error_of_a_step_is_raised_also_when_publishing_its_failure_fails(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bus = Bus()

    @bus.subscribe(StepFailed)
    def broken(event: StepFailed) -> None:
        raise KeyError("of the subscriber")

    with pytest.raises(ValueError, match="of the step"):
        async with bus.step(WORK, "a"):
            raise ValueError("of the step")
    with anyio.CancelScope() as scope:
        async with bus.step(WORK, "b"):
            scope.cancel()
            await anyio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert [record.getMessage() for record in caplog.records] == [
        f"publishing that work '{name}' failed was itself not possible" for name in "ab"
    ]


async def test_calls_for_a_phase_are_published_as_steps_with_their_changes() -> None:
    seen: list[Any] = []
    async with Bus() as bus:
        bus.observe(CallbackStarted | CallbackFinished | CallbackFailed, seen.append)

        def change(event: Any, context: Context) -> dict[str, int]:
            context["a"] = 1
            return {"b": 2}

        def broken(event: Any, context: Context) -> None:
            context["c"] = 3
            raise ValueError

        bus.subscribe("boarding", change)
        bus.subscribe("boarding", lambda phase, config, data: None, name="looks")
        bus.subscribe("boarding", broken, on_error="isolate")
        context = Context()
        outcome = await bus.publish(phase_event("boarding")(), context)
    assert [(type(e).__name__, e.name) for e in seen] == [
        ("CallbackStarted", "change"),
        ("CallbackFinished", "change"),
        ("CallbackStarted", "looks"),
        ("CallbackFinished", "looks"),
        ("CallbackStarted", "broken"),
        ("CallbackFailed", "broken"),
    ]
    assert seen[1].attributes == {"event": "Boarding", "phase": "boarding", "changed": "a,b"}
    assert "changed" not in seen[3].attributes
    assert outcome["change"].value == {"b": 2}
    assert len(context.history("b")) == 1
    assert dict(context) == {"a": 1, "b": 2}


async def test_calls_are_no_steps_without_a_subscriber_to_callback_events() -> None:
    bus = Bus()
    events: list[Any] = []
    bus.subscribe(Any, events.append)
    await bus.publish(phase_event("boarding")())
    assert [type(event).__name__ for event in events] == ["Boarding"]


async def test_step_may_be_left_in_another_task() -> None:
    bus = Bus()
    events = collecting(bus)
    step = bus.step(WORK, "a")
    await step.__aenter__()

    async def leave() -> None:
        await step.__aexit__(None, None, None)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(leave)
    assert current_step() is None
    async with bus.step(WORK, "b"):
        pass
    assert [(type(event), event.name, event.parent) for event in events] == [
        (StepStarted, "a", None),
        (StepFinished, "a", None),
        (StepStarted, "b", None),
        (StepFinished, "b", None),
    ]
