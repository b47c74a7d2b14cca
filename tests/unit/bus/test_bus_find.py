"""Waiting for one event, and streams that begin with the steps that run now."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from phasebus.bus import Bus, BusStateError, OptionError, StepEvent, StepFailed, StepKind, StepStarted
from phasebus.bus._past import RUNNING_STEPS
from phasebus.bus._selectors import selector

pytestmark = pytest.mark.anyio

WORK = StepKind("work")


async def test_find_returns_the_next_event_that_matches() -> None:
    found: list[int] = []
    async with Bus() as bus, anyio.create_task_group() as tasks:

        async def find() -> None:
            found.append(await bus.find(int, where=lambda number: number > 1))

        tasks.start_soon(find)
        await anyio.wait_all_tasks_blocked()
        for number in (1, 2, 3):
            await bus.publish(number)
    assert found == [2]
    assert bus.stats() == ()


async def test_find_returns_the_latest_match_of_the_past() -> None:
    async with Bus(history=10) as bus:
        for number in range(5):
            await bus.publish(number)
        assert await bus.find(int, past=True) == 4
        assert await bus.find(int, past=True, where=lambda number: number < 3) == 2
        with pytest.raises(TimeoutError, match=r"there was no event of int within 0\.01 s"):
            await bus.find(int, past=2, where=lambda number: number < 3, timeout=0.01)
        with pytest.raises(TimeoutError):
            await bus.find(int, timeout=0.01)


async def test_find_in_a_bus_that_closes_raises() -> None:
    errors: list[BusStateError] = []
    async with anyio.create_task_group() as tasks, Bus() as bus:

        async def find() -> None:
            with pytest.raises(BusStateError, match="was closed before there was an event of int") as caught:
                await bus.find(int)
            errors.append(caught.value)

        tasks.start_soon(find)
        await anyio.wait_all_tasks_blocked()
    assert len(errors) == 1
    with pytest.raises(BusStateError, match="has to be open"):
        await bus.find(int)


@pytest.mark.parametrize("options", [{"timeout": -1}, {"past": -1}])
async def test_find_refuses_wrong_options(options: dict[str, Any]) -> None:
    async with Bus() as bus:
        with pytest.raises(OptionError):
            await bus.find(int, **options)


async def test_stream_begins_with_the_starts_of_the_running_steps() -> None:
    async with Bus(history=100) as bus:
        async with bus.step(WORK, "ended"):
            pass
        with pytest.raises(ValueError):
            async with bus.step(WORK, "failed"):
                raise ValueError
        async with bus.step(WORK, "outer"), bus.step(WORK, "inner"):
            async with bus.stream(StepEvent, present=True) as stream:
                async with bus.step(WORK, "later"):
                    pass
                seen = [await anext(stream) for _ in range(4)]
            assert [(type(event).__name__, event.name) for event in seen] == [
                ("StepStarted", "outer"),
                ("StepStarted", "inner"),
                ("StepStarted", "later"),
                ("StepFinished", "later"),
            ]
            async with bus.stream(StepStarted, present=True, replay=True) as both:
                names = [(await anext(both)).name for _ in range(5)]
            assert names == ["outer", "inner", "ended", "failed", "later"], "each event comes once"
            assert (await bus.find(StepStarted, past=True, where=lambda event: event.name == "outer")).name == "outer"
            async with bus.stream(StepFailed, present=True) as none:
                await bus.publish("other")
                assert len(none.buffer) == 0
        assert bus._past.select(selector(StepStarted), 0, present=True) == []


async def test_running_steps_are_known_though_nothing_listened_to_their_starts() -> None:
    async with Bus() as bus, bus.step(WORK, "early") as step:
        assert not bus.wants(StepStarted)
        found = await bus.find(StepStarted, past=True)
        assert found.step == step.id


async def test_steps_without_an_end_are_forgotten_when_there_are_too_many() -> None:
    bus = Bus()
    for number in range(RUNNING_STEPS + 20):
        await bus.publish(StepStarted(step=f"{number:016x}", kind="work", name=str(number)))
    running = bus._past.select(selector(StepStarted), 0, present=True)
    assert [event.name for event in running] == [str(number) for number in range(20, RUNNING_STEPS + 20)]
