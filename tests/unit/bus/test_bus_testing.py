"""The shipped test helpers."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import pytest

from phasebus.bus import Context, PhaseEvent, phase_event
from phasebus.bus.testing import RecordingBus

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class Ping:
    number: int = 0


@dataclass(frozen=True)
class Pong:
    number: int = 0


async def test_fixture_records_events_in_order(recording_bus: RecordingBus) -> None:
    rec = recording_bus
    await rec.publish(Ping(1))
    await rec.publish(Pong(2))
    await rec.publish(phase_event("landing")())
    rec.assert_order(Ping, Pong)
    rec.assert_order(Ping(1), Ping | Pong, "landing")
    rec.assert_order(PhaseEvent)
    rec.assert_order()
    with pytest.raises(AssertionError, match=r"Ping was not published, or too early; what was: Ping\(number=1\), Pong"):
        rec.assert_order(Pong, Ping)
    with pytest.raises(AssertionError, match=r"Ping\(number=9\) was not published"):
        rec.assert_order(Ping(9))


async def test_recording_bus_lists_the_author_of_each_change(recording_bus: RecordingBus) -> None:
    rec = recording_bus

    @rec.subscribe(Ping)
    def writer(event: Ping, context: Context) -> None:
        context["a"] = event.number

    rec.subscribe(Ping, lambda event: None, name="other")
    with pytest.raises(AssertionError):
        rec.assert_ran("writer")
    await rec.publish(Ping(1))
    await rec.publish(Ping(2), Context({"b": 0}))
    assert rec.wrote("a")
    assert rec.wrote("a", by="writer")
    assert rec.wrote("a", by=writer)
    assert not rec.wrote("a", by="other")
    assert not rec.wrote("none")
    assert [change.value for change in rec.changes("a")] == [1, 2]
    rec.assert_ran("writer", "other")
    with pytest.raises(AssertionError, match="ran, not"):
        rec.assert_ran("other", "writer")


async def test_order_of_events_that_cannot_be_compared(recording_bus: RecordingBus) -> None:
    class Array:
        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            raise ValueError("the truth value of an array with more than one element is ambiguous")

    first, second = Array(), Array()
    for event in (first, second, Ping()):
        await recording_bus.publish(event)
    recording_bus.assert_order(Array, Ping)
    recording_bus.assert_order(first, second, Ping())
    with pytest.raises(AssertionError):
        recording_bus.assert_order(second, first)


async def test_it_is_a_bus_with_observers_and_all(recording_bus: RecordingBus) -> None:
    seen: list[object] = []
    async with recording_bus as rec:
        rec.observe(Ping, seen.append)
        await rec.publish(Ping())
    assert seen == rec.events == [Ping()]


def test_the_bus_does_not_need_pytest() -> None:
    script = "import sys, phasebus.bus, phasebus.bus.testing; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
