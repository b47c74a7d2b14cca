"""The times of events where the wall clock is set meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from phasebus import clock
from phasebus.bus import Bus, StepEvent, StepKind
from phasebus.clock import SMALLEST_CHANGE_NS, EventClock

pytestmark = pytest.mark.anyio

SECOND = 1_000_000_000
HOUR = 3600 * SECOND
SetClock = Callable[[int], None]


class Machine:
    """A machine with a wall clock, which can be set, and a steady one."""

    def __init__(self) -> None:
        self.steady = 5 * SECOND
        self.offset = 1_800_000_000 * SECOND

    @property
    def wall(self) -> int:
        return self.steady + self.offset

    def clock(self) -> EventClock:
        return EventClock(lambda: self.wall, lambda: self.steady)


@pytest.mark.parametrize("change", [HOUR, -HOUR, SMALLEST_CHANGE_NS, -1_800_000_000 * SECOND])
def test_clock_continues_evenly_where_the_wall_clock_is_set(change: int) -> None:
    machine = Machine()
    events, began = machine.clock(), machine.wall
    for _ in range(3):
        machine.steady += SECOND
        events.now_ns()
        machine.offset += change
        assert events.now_ns() == began + machine.steady - 5 * SECOND
    assert events.correction_ns() == -3 * change
    events.restart()
    assert events.now_ns() == machine.wall
    assert events.correction_ns() == 0


def test_clock_follows_small_changes_however_many_there_are() -> None:
    machine = Machine()
    events = machine.clock()
    for change in [SMALLEST_CHANGE_NS - 1] * 10 + [-SECOND]:
        machine.offset += change
        assert events.now_ns() == machine.wall
    assert events.correction_ns() == 0


def test_clock_is_not_misled_by_a_thread_that_is_stopped_between_two_clocks() -> None:
    machine = Machine()
    stops = iter([60 * SECOND])

    def steady() -> int:
        machine.steady += next(stops, 0)
        return machine.steady

    events = EventClock(lambda: machine.wall, lambda: machine.steady)
    stopping = EventClock(lambda: machine.wall, steady)
    stopping.restart()  # takes the stop
    assert stopping.now_ns() == machine.wall == events.now_ns()
    stops = iter([60 * SECOND])
    assert stopping.now_ns() == machine.wall
    assert stopping.correction_ns() == 0


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[SetClock]:
    """Sets the wall clock of the events of this process, by nanoseconds."""

    def set_(change: int) -> None:
        monkeypatch.setattr(clock._EVENTS, "_wall", lambda: time.time_ns() + change)

    yield set_
    monkeypatch.undo()
    clock.restart()


@pytest.mark.parametrize("change", [HOUR, -HOUR])
async def test_steps_have_their_duration_although_the_clock_is_set(set_clock: SetClock, change: int) -> None:
    events: list[StepEvent] = []
    async with Bus() as bus:
        bus.subscribe(StepEvent, events.append)
        async with bus.step(StepKind("node"), "outer"):
            async with bus.step(StepKind("phase"), "inner"):
                set_clock(change)
            async with bus.step(StepKind("phase"), "later"):
                pass
        async with bus.step(StepKind("node"), "next"):
            pass
    times = [event.time_ns for event in events]
    assert times[:6] == sorted(times[:6])
    assert times[5] - times[0] < HOUR // 2
    assert abs(times[6] - times[5] - change) < HOUR // 2, "what begins when nothing runs has the time of the wall clock"
