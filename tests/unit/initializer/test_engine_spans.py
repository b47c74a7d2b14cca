from __future__ import annotations

import pytest

from phasebus.bus import Bus, StepEvent
from phasebus.initializer import EngineStepFailed, EngineStepFinished, EngineStepStarted
from phasebus.initializer.engines.vllm.spans import events_of
from phasebus.initializer.engines.vllm.steps import relayed_steps
from phasebus.telemetry import EngineSpan
from phasebus.telemetry.relay import Forwarder, Relay

STEP, BELOW = "a" * 16, "b" * 16


def span(name: str = "Load weights", *, error: str | None = None, parent: str | None = BELOW) -> EngineSpan:
    return EngineSpan(
        name=name,
        trace="c" * 32,
        span=STEP,
        parent=parent,
        start_ns=1_000_000_000,
        end_ns=3_000_000_000,
        attributes={},
        resource={"vllm.process_name": "Worker_0", "vllm.process_id": 7},
        error=error,
    )


def test_a_span_is_a_step_that_began_and_ended_under_our_name_for_it() -> None:
    begun, ended = events_of(span())
    assert isinstance(begun, EngineStepStarted)
    assert isinstance(ended, EngineStepFinished)
    assert begun.name == ended.name == "load_weights"
    assert (begun.time_ns, ended.time_ns, ended.seconds) == (1_000_000_000, 3_000_000_000, 2.0)
    assert begun.attributes == {"span": "Load weights", "process": "Worker_0", "pid": 7}
    assert begun.traced


def test_a_span_nobody_has_heard_of_passes_through_under_its_own_name() -> None:
    begun, _ = events_of(span("Something new"))
    assert (begun.name, begun.attributes["span"]) == ("other", "Something new")


def test_a_failed_span_is_a_failed_step() -> None:
    _, ended = events_of(span(error="out of memory"))
    assert isinstance(ended, EngineStepFailed)
    assert str(ended.error) == "out of memory"


@pytest.mark.anyio
async def test_spans_that_arrive_while_the_engine_starts_become_events_before_its_end() -> None:
    relay = Relay(Forwarder(None))
    seen: list[StepEvent] = []
    relay.start()
    try:
        async with Bus() as bus:
            bus.subscribe(StepEvent, seen.append)
            async with relayed_steps(bus, relay, BELOW):
                for listener in relay._listeners:
                    listener(span())
            assert [type(event) for event in seen] == [EngineStepStarted, EngineStepFinished]
            assert relay._listeners == []
    finally:
        relay.close()
