from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator

import anyio
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace.status import StatusCode

from phasebus.bus import Bus, StepFailed, StepFinished, StepKind, StepStarted
from phasebus.observers import SpanObserver
from phasebus.telemetry import EngineSpan, Relay, RunIdentity, Tracing

pytestmark = pytest.mark.anyio

PHASE = StepKind("phase")
STEP = "a" * 16


class Spans:
    def __init__(self, relay: Relay | None = None) -> None:
        self._exporter = InMemorySpanExporter()
        self._tracing = Tracing(RunIdentity.fresh("n", {}), self._exporter)
        self.observer = SpanObserver(self._tracing, relay, last_spans_seconds=0)

    def exported(self) -> dict[str, ReadableSpan]:
        self._tracing.close()
        return {span.name: span for span in self._exporter.get_finished_spans()}


async def test_nested_steps_become_nested_spans_with_their_attributes() -> None:
    spans = Spans()
    async with Bus() as bus:
        bus.observe(None, spans.observer)
        async with bus.step(StepKind("node"), "n1", attributes={"model": "m"}), bus.step(PHASE, "download") as phase:
            phase.attributes["late"] = 1
    found = spans.exported()
    node, download = found["node init"], found["phase download"]
    assert download.parent is not None
    assert node.context is not None
    assert download.parent.span_id == node.context.span_id
    assert dict(node.attributes or {}) == {"phasebus.kind": "node", "phasebus.name": "n1", "phasebus.model": "m"}
    assert (download.attributes or {})["phasebus.late"] == 1


async def test_a_failure_is_recorded_by_the_conventions_for_exceptions() -> None:
    spans = Spans()
    async with Bus() as bus:
        bus.observe(None, spans.observer)
        with pytest.raises(ValueError, match="token"):
            async with bus.step(PHASE, "download"):
                raise ValueError("token=hunter2secret refused")
    span = spans.exported()["phase download"]
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "token=[redacted] refused"
    assert (span.attributes or {})["error.type"] == "ValueError"
    assert (span.attributes or {})["phasebus.outcome"] == "failed"
    assert [event.name for event in span.events] == ["exception"]


async def test_a_cancelled_step_has_the_outcome_cancelled() -> None:
    spans = Spans()
    async with Bus() as bus:
        bus.observe(None, spans.observer)
        with anyio.CancelScope() as scope:
            async with bus.step(PHASE, "download"):
                scope.cancel()
                await anyio.lowlevel.checkpoint()
    span = spans.exported()["phase download"]
    assert (span.attributes or {})["phasebus.outcome"] == "cancelled"


def test_a_step_whose_process_exports_its_own_span_gets_no_other_one() -> None:
    spans = Spans()
    spans.observer.observe(StepStarted(step=STEP, kind="engine_step", name="x", traced=True))
    spans.observer.observe(StepFinished(step=STEP, kind="engine_step", name="x", traced=True, seconds=1.0))
    assert spans.exported() == {}


def test_a_step_that_has_not_ended_is_ended_as_died_when_the_bus_closes() -> None:
    spans = Spans()
    spans.observer.observe(StepStarted(step=STEP, kind="phase", name="download"))
    spans.observer.close()
    assert (spans.exported()["phase download"].attributes or {})["phasebus.outcome"] == "died"


def test_an_end_without_a_beginning_is_ignored() -> None:
    spans = Spans()
    spans.observer.observe(
        StepFailed(step=STEP, kind="phase", name="x", seconds=1.0, outcome="failed", error=ValueError())
    )
    assert spans.exported() == {}


async def test_steps_inside_a_step_of_another_trace_belong_to_that_trace() -> None:
    spans = Spans()
    async with Bus() as bus:
        bus.observe(None, spans.observer)
        trace = {"trace_id": "ab" * 16}
        async with bus.step(StepKind("request"), "api", parent="cd" * 8, attributes=trace), bus.step(PHASE, "inner"):
            pass
        async with bus.step(PHASE, "outside"):
            pass
    found = spans.exported()
    request, inner, outside = found["request api"], found["phase inner"], found["phase outside"]
    assert request.context is not None
    assert inner.context is not None
    assert outside.context is not None
    assert request.context.trace_id == inner.context.trace_id == int("ab" * 16, 16) != outside.context.trace_id
    assert request.parent is not None
    assert request.parent.span_id == int("cd" * 8, 16)


def engine_span(span: str, start_ns: int) -> EngineSpan:
    return EngineSpan(
        name="x", trace="f" * 32, span=span, parent=None, start_ns=start_ns, end_ns=9, attributes={}, resource={}
    )


@pytest.mark.parametrize(
    ("arrived", "exported"),
    [
        ([], ["engine step load"]),
        ([engine_span(STEP, 5)], []),
        ([engine_span("b" * 16, 5)], []),  # the process used an id that another one had used before
        ([engine_span("b" * 16, 6)], ["engine step load"]),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_a_span_that_its_own_process_has_not_exported_is_made_when_the_bus_closes(
    arrived: list[EngineSpan], exported: list[str], *, first: bool
) -> None:
    relay = Relay()
    spans = Spans(relay)
    for span in arrived if first else ():
        relay.publish(span)
    about = {"step": STEP, "kind": "engine_step", "name": "load", "traced": True}
    spans.observer.observe(StepStarted(**about, time_ns=5))  # type: ignore[arg-type]
    spans.observer.observe(StepFinished(**about, time_ns=8, seconds=1.0))  # type: ignore[arg-type]
    for span in () if first else arrived:
        relay.publish(span)
    spans.observer.close()
    relay.close()
    found = spans.exported()
    assert list(found) == exported
    assert [(span.start_time, span.end_time) for span in found.values()] == [(5, 8) for _ in exported]


def test_a_span_that_arrives_while_the_bus_closes_is_not_made_twice() -> None:
    relay, tracing_exporter = Relay(), InMemorySpanExporter()
    tracing = Tracing(RunIdentity.fresh("n", {}), tracing_exporter)
    observer = SpanObserver(tracing, relay, last_spans_seconds=60)
    about = {"step": STEP, "kind": "engine_step", "name": "load", "traced": True}
    observer.observe(StepStarted(**about, time_ns=5))  # type: ignore[arg-type]
    observer.observe(StepFinished(**about, time_ns=8, seconds=1.0))  # type: ignore[arg-type]
    closing = threading.Thread(target=observer.close)
    closing.start()
    relay.publish(engine_span(STEP, 5))
    closing.join(60)
    assert not closing.is_alive()
    tracing.close()
    relay.close()
    assert tracing_exporter.get_finished_spans() == ()


def test_a_span_that_the_engine_exports_past_the_relay_is_not_made_again() -> None:
    relay = Relay()
    relay.is_bypassed = True
    spans = Spans(relay)
    about = {"step": STEP, "kind": "engine_step", "name": "load", "traced": True}
    spans.observer.observe(StepStarted(**about, time_ns=5))  # type: ignore[arg-type]
    spans.observer.observe(StepFinished(**about, time_ns=8, seconds=1.0))  # type: ignore[arg-type]
    spans.observer.close()
    relay.close()
    assert spans.exported() == {}


def test_spans_that_arrive_while_the_observer_closes_do_not_disturb_it() -> None:
    """The relay's thread appends them to what `close` reads."""
    relay = Relay()
    observer = SpanObserver(Tracing(RunIdentity.fresh("n", {})), relay, last_spans_seconds=0.0)

    class Arrived(deque[tuple[str, int]]):
        def __iter__(self) -> Iterator[tuple[str, int]]:
            assert observer._arrival._is_owned(), "it is read while it may change"  # type: ignore[attr-defined]
            return super().__iter__()

    observer._arrived = Arrived()
    observer.close()
    relay.close()
