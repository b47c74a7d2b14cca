"""What the spans of a cluster's nodes say of their attempts and their clocks."""

from __future__ import annotations

import time
from typing import Any

import pytest

from phasebus.bus import Bus, StepFinished
from phasebus.initializer import LLMConfig
from phasebus.initializer.cluster import engines
from phasebus.initializer.cluster.clocks import clock_offset_seconds
from phasebus.initializer.cluster.engines import EngineStart
from phasebus.initializer.cluster.layout import EngineSeats, Seat
from phasebus.telemetry import RunIdentity

SECOND = 10**9


class NodeAt:
    """An actor on a machine with a clock that is ahead by some seconds."""

    host = "other-machine"

    def __init__(self, ahead: float) -> None:
        self._ahead_ns = int(ahead * SECOND)

    async def call(self, method: str) -> tuple[str, int]:
        assert method == "journal_and_clock"
        return "/journal", time.time_ns() + self._ahead_ns


async def actor_steps(monkeypatch: pytest.MonkeyPatch, ahead: float, attempts: int = 1) -> list[StepFinished]:
    async def start_actor(*_: Any, **__: Any) -> NodeAt:
        return NodeAt(ahead)

    monkeypatch.setattr(engines, "start_actor", start_actor)
    seen: list[StepFinished] = []

    def collect(event: StepFinished) -> None:
        seen.append(event)

    async with Bus() as bus:
        bus.subscribe(StepFinished, collect)
        seats = EngineSeats(
            config=LLMConfig(model="m", engine="none"), bundles=[0], seats=[Seat(node="chat-0", bundle=0)]
        )
        start = EngineStart(
            seats,
            bus=bus,
            identity=RunIdentity(run="r", trace="a" * 32, node="driver"),
            step="b" * 16,
            group=None,
            given={},
            hub=None,
            silence=1.0,
            started=[],
        )
        for attempt in range(attempts):
            await start._start_actors(f"-try{attempt}", [])
    return seen


@pytest.mark.anyio
async def test_node_with_another_clock_has_the_difference_on_its_span_and_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (behind,) = await actor_steps(monkeypatch, -30.0)
    assert behind.attributes["clock_offset_seconds"] == pytest.approx(-30.0, abs=20.0)
    (warning,) = [record.getMessage() for record in caplog.records if record.name == "phasebus.cluster"]
    assert "other-machine" in warning
    assert "s behind this machine's" in warning


@pytest.mark.anyio
async def test_node_with_the_same_clock_has_no_difference_on_its_span(monkeypatch: pytest.MonkeyPatch) -> None:
    (same,) = await actor_steps(monkeypatch, 0.0)
    assert "clock_offset_seconds" not in same.attributes


@pytest.mark.anyio
async def test_node_that_is_started_again_links_to_the_attempt_that_it_replaces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second, third = await actor_steps(monkeypatch, 0.0, attempts=3)
    assert "linked_to" not in first.attributes
    assert second.attributes["linked_to"] == f"00-{'a' * 32}-{first.step}-01"
    assert third.attributes["linked_to"] == f"00-{'a' * 32}-{second.step}-01"


@pytest.mark.parametrize(
    ("remote", "received", "offset"),
    [(30, 0, 30.0), (-30, 0, -30.0), (0.9, 0, None), (2, 4, None), (33, 4, 31.0), (-30, -4, -28.0)],
)
def test_clock_offset_is_known_beyond_the_duration_of_the_answer(
    remote: float, received: float, offset: float | None
) -> None:
    assert clock_offset_seconds(0, int(remote * SECOND), int(received * SECOND)) == offset
