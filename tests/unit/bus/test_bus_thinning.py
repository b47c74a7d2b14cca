"""What a slow observer is spared: samples, intervals, and progress that is out of date."""

from __future__ import annotations

import threading
import time
from typing import Any

import anyio
import anyio.to_thread
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phasebus.bus import Bus, OptionError, Step, StepFinished, StepKind, StepProgress, StepStarted, new_step_id
from phasebus.bus._thinning import Thinning

pytestmark = pytest.mark.anyio

WORK = StepKind("work")


class Ping:
    pass


def step_events(progress: int, step: str | None = None) -> list[Any]:
    fields: dict[str, Any] = {"step": step or new_step_id(), "kind": "work", "name": "a"}
    return [
        StepStarted(**fields),
        *(StepProgress(**fields, done=number) for number in range(progress)),
        StepFinished(**fields, seconds=1.0),
    ]


@given(st.floats(0.01, 1.0), st.lists(st.integers(0, 3), min_size=1, max_size=50))
def test_sample_lets_a_step_pass_whole_or_not_at_all(sample: float, progress: list[int]) -> None:
    thinning = Thinning(sample, 0)
    for number in progress:
        assert len({thinning.passes(event) for event in step_events(number)}) == 1


def test_sample_is_the_share_of_events_that_pass() -> None:
    thinning = Thinning(0.25, 0)
    steps = [f"{int(number / 1000 * 2**64):016x}" for number in range(1000)]
    assert sum(thinning.passes(step_events(0, step)[0]) for step in steps) == 250
    assert [thinning.passes(Ping()) for _ in range(8)] == [True, False, False, False] * 2


@pytest.mark.parametrize("ids", [[f"job-{number}" for number in range(1000)], [str(number) for number in range(1000)]])
def test_sample_of_steps_with_other_ids_is_about_its_share(ids: list[str]) -> None:
    thinning = Thinning(0.25, 0)
    passed = [{thinning.passes(event) for event in step_events(2, step)} for step in ids]
    assert 150 < passed.count({True}) < 350
    assert {True, False} not in passed


def test_steps_without_an_end_are_forgotten_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phasebus.bus._thinning.RUNNING_STEPS", 10)
    thinning = Thinning(1.0, 60.0)
    for _ in range(100):
        assert thinning.passes(step_events(1)[1])
    assert len(thinning._last) == 10


def test_min_seconds_spares_progress_but_no_start_and_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    thinning = Thinning(1.0, 5.0)
    started, *progress, finished = step_events(6)
    other = step_events(1)
    passed = []
    for event in (started, *progress, other[1], finished):
        passed.append(thinning.passes(event))
        now[0] += 2
    assert passed == [True, True, False, False, True, False, False, True, True]
    assert [thinning.passes(Ping()), thinning.passes(Ping())] == [True, False]
    assert finished.step not in thinning._last


@pytest.mark.parametrize("options", [{"sample": 0}, {"sample": 1.5}, {"sample": True}, {"min_seconds": -1}])
async def test_wrong_shares_and_intervals_are_refused(options: dict[str, Any]) -> None:
    async with Bus() as bus:
        with pytest.raises(OptionError):
            bus.observe(Ping, lambda event: None, **options)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_coalesced_progress_is_the_latest_and_keeps_its_place(asynchronous: bool) -> None:
    begun, release = threading.Event(), threading.Event()
    seen: list[Any] = []

    def look(event: Any) -> None:
        begun.set()
        release.wait(60)
        seen.append((type(event).__name__, event.name, getattr(event, "done", None)))

    async def look_later(event: Any) -> None:
        begun.set()
        await anyio.to_thread.run_sync(release.wait, 60)
        look(event)

    async with Bus() as bus:
        bus.observe(
            StepStarted | StepProgress | StepFinished, look_later if asynchronous else look, name="slow", coalesce=True
        )
        async with bus.step(WORK, "a") as first:
            await anyio.to_thread.run_sync(begun.wait, 60)
            for number in range(100):
                await first.progress(number)
            async with bus.step(WORK, "b") as second:
                for number in range(100):
                    await second.progress(number)
                await first.progress(100)
        release.set()
    assert seen == [
        ("StepStarted", "a", None),
        ("StepProgress", "a", 100),
        ("StepStarted", "b", None),
        ("StepProgress", "b", 99),
        ("StepFinished", "b", None),
        ("StepFinished", "a", None),
    ]
    assert bus.stats()[0].drops == 0


async def test_coalesced_progress_that_was_dropped_makes_room_for_newer_one() -> None:
    begun, release = threading.Event(), threading.Event()
    seen: list[float] = []

    def look(event: StepProgress) -> None:
        begun.set()
        release.wait(60)
        seen.append(event.done)

    async with Bus() as bus:
        bus.observe(None, look, coalesce=True, buffer=1)
        first, second = Step(bus, WORK, "a"), Step(bus, WORK, "b")
        await first.progress(0)
        await anyio.to_thread.run_sync(begun.wait, 60)
        await first.progress(1)
        await second.progress(2)
        await first.progress(3)
        release.set()
    assert seen == [0, 3]
    assert bus.stats()[0].drops == 2


async def test_observer_gets_only_its_sample_and_the_rest_is_not_counted_as_dropped() -> None:
    seen: list[Any] = []
    async with Bus() as bus:
        bus.observe(Ping, seen.append, sample=0.5, buffer=100)
        for _ in range(10):
            await bus.publish(Ping())
    assert len(seen) == 5
    assert bus.stats()[0].drops == 0


async def test_coalescing_observer_that_failed_keeps_no_progress_events() -> None:
    async def broken(event: StepStarted) -> None:
        raise ValueError

    async with Bus() as bus:
        observation = bus.observe(StepStarted | StepProgress, broken, coalesce=True)
        for number in range(20):
            async with bus.step(WORK, str(number)) as step:
                await step.progress(1)
            await anyio.wait_all_tasks_blocked()
        assert observation._latest == {}
