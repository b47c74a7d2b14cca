from __future__ import annotations

import os
import subprocess
import sys

import anyio
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace.status import StatusCode

from phasebus.bus import Bus, StepFailed, StepFinished, StepKind, StepStarted
from phasebus.observers import SpanObserver
from phasebus.telemetry import RunIdentity, Tracing
from phasebus.telemetry.stuck import StuckStep, StuckSteps

pytestmark = pytest.mark.anyio

PHASE = StepKind("phase")
STEP = "a" * 16


class Spans:
    def __init__(self, **environment: str) -> None:
        self._exporter = InMemorySpanExporter()
        self._tracing = Tracing(RunIdentity.fresh("n", {}), self._exporter, environment=environment)
        self.observer = SpanObserver(self._tracing)

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


async def test_reason_why_a_step_was_stuck_is_an_event_on_its_own_span() -> None:
    spans, inner = Spans(), "b" * 16
    step = StuckStep(step=inner, name="inner", process="p", pid=7, running_seconds=9, reason="token=hunter2secret")
    spans.observer.observe(StepStarted(step=STEP, kind="phase", name="outer"))
    spans.observer.observe(StepStarted(step=inner, parent=STEP, kind="phase", name="inner"))
    spans.observer.record_stuck(StuckSteps(steps=(step,)))
    spans.observer.observe(StepFinished(step=inner, parent=STEP, kind="phase", name="inner", seconds=1.0))
    spans.observer.record_stuck(StuckSteps(steps=(step,)))  # too late: it has ended
    spans.observer.observe(StepFinished(step=STEP, kind="phase", name="outer", seconds=1.0))
    found = spans.exported()
    (event,) = found["phase inner"].events
    assert event.name == "stuck"
    assert dict(event.attributes or {}) == {
        "reason": "token=[redacted]",
        "process": "p",
        "pid": 7,
        "running_seconds": 9,
    }
    assert found["phase outer"].events == ()


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
    (event,) = span.events
    assert event.name == "exception"
    assert (event.attributes or {})["exception.type"] == "ValueError"
    stack = str((event.attributes or {})["exception.stacktrace"])
    assert stack.startswith("Traceback")
    assert "in test_a_failure_is_recorded" in stack
    assert "hunter2secret" not in stack


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


def test_engine_step_whose_end_names_another_parent_lies_below_that() -> None:
    spans = Spans()
    about = {"step": STEP, "kind": "engine_step", "name": "warm_up"}
    spans.observer.observe(StepStarted(**about, parent="b" * 16, time_ns=5))  # type: ignore[arg-type]
    spans.observer.observe(StepFinished(**about, parent="c" * 16, time_ns=8, seconds=1.0))  # type: ignore[arg-type]
    span = spans.exported()["warm up"]
    assert span.parent is not None
    assert (span.parent.span_id, span.start_time, span.end_time) == (int("c" * 16, 16), 5, 8)


def test_step_of_another_process_has_a_resource_of_its_own() -> None:
    spans = Spans()
    resources = []
    for number, pid in enumerate((7, 8, 7)):
        attributes = {"process": f"Worker_{pid}", "pid": pid, "vllm.span": "Load weights"}
        about = {"step": f"{number + 1:016x}", "kind": "engine_step", "name": f"s{number}", "attributes": attributes}
        spans.observer.observe(StepStarted(**about))  # type: ignore[arg-type]
        spans.observer.observe(StepFinished(**about, seconds=1.0))  # type: ignore[arg-type]
    for span in spans.exported().values():
        resources.append(span.resource.attributes)
        assert (span.attributes or {})["vllm.span"] == "Load weights"
    assert [each["process.pid"] for each in resources] == [7, 8, 7]
    assert len({each["service.instance.id"] for each in resources}) == 2
    assert {each["service.name"] for each in resources} == {"phasebus"}


def test_unknown_step_of_an_engine_keeps_the_name_of_its_span() -> None:
    spans = Spans()
    about = {"step": STEP, "kind": "engine_step", "name": "other", "attributes": {"span_name": "Tune kernels"}}
    spans.observer.observe(StepStarted(**about))  # type: ignore[arg-type]
    spans.observer.observe(StepFinished(**about, seconds=1.0))  # type: ignore[arg-type]
    assert list(spans.exported()) == ["Tune kernels"]


def test_failure_in_another_process_has_the_stack_trace_of_that_process() -> None:
    spans = Spans()
    about = {"step": STEP, "kind": "engine_step", "name": "load"}
    spans.observer.observe(StepStarted(**about))  # type: ignore[arg-type]
    attributes = {"exception.stacktrace": "Traceback: password=hunter2secret\n" + "x" * 9000 + " the end"}
    failed = StepFailed(**about, attributes=attributes, seconds=1.0, outcome="failed", error=ValueError("no"))  # type: ignore[arg-type]
    spans.observer.observe(failed)
    span = spans.exported()["load"]
    assert "exception.stacktrace" not in (span.attributes or {})
    stack = str((span.events[0].attributes or {})["exception.stacktrace"])
    assert stack.endswith(" the end")
    assert len(stack) == 8192


async def test_what_inner_steps_did_are_events_on_the_outer_span() -> None:
    spans = Spans()
    async with Bus() as bus:
        bus.observe(None, spans.observer)
        async with bus.step(StepKind("download"), "m"):
            files: dict[str, dict[str, str | int | float | bool]] = {
                "retried": {"retries": 2, "outcome": "fetched"},
                "known": {"retries": 0, "outcome": "cache_hit"},
                "plain": {"retries": 0, "outcome": "fetched"},
            }
            for name, attributes in files.items():
                async with bus.step(StepKind("file"), name) as file:
                    file.attributes |= attributes
        async with bus.step(PHASE, "pre"), bus.step(StepKind("callback"), "shorten") as callback:
            callback.attributes["changed"] = "engine_args"
    found = spans.exported()
    events = [(event.name, dict(event.attributes or {})) for event in found["download model"].events]
    assert events == [("download retried", {"retries": 2, "file": "retried"}), ("cache hit", {"file": "known"})]
    (event,) = found["phase pre"].events
    assert (event.name, dict(event.attributes or {})) == (
        "context changed",
        {"keys": "engine_args", "callback": "shorten"},
    )


def test_events_on_one_span_are_bounded() -> None:
    spans = Spans()
    outer = {"step": "b" * 16, "kind": "download", "name": "m"}
    spans.observer.observe(StepStarted(**outer))  # type: ignore[arg-type]
    for number in range(1, 1000):
        about = {"step": f"{number:016x}", "parent": "b" * 16, "kind": "file", "name": "f"}
        spans.observer.observe(StepStarted(**about))  # type: ignore[arg-type]
        spans.observer.observe(StepFinished(**about, attributes={"retries": 1}, seconds=0.0))  # type: ignore[arg-type]
    spans.observer.observe(StepFinished(**outer, seconds=1.0))  # type: ignore[arg-type]
    assert len(spans.exported()["download model"].events) == 100


@pytest.mark.parametrize("enabled", [True, False])
def test_running_step_is_exported_as_a_span_inside_its_own_if_enabled(enabled: bool) -> None:
    spans = Spans(**({"PHASEBUS_PENDING_SPANS": "1"} if enabled else {}))
    spans.observer.observe(StepStarted(step=STEP, kind="phase", name="download"))
    assert spans.observer._running
    if not enabled:
        assert spans.exported() == {}
        return
    spans.observer.observe(StepFinished(step=STEP, kind="phase", name="download", seconds=1.0))
    found = spans.exported()
    pending, own = found["started phase download"], found["phase download"]
    assert pending.parent is not None
    assert own.context is not None
    assert pending.context is not None
    assert pending.parent.span_id == own.context.span_id != pending.context.span_id
    assert pending.start_time == pending.end_time == own.start_time
    assert (pending.attributes or {})["phasebus.pending"] is True


def test_step_that_names_a_related_span_has_a_link_to_it() -> None:
    spans = Spans()
    attributes = {"linked_to": f"00-{'a' * 32}-{'b' * 16}-01"}
    spans.observer.observe(StepStarted(step=STEP, kind="phase", name="x", attributes=attributes))
    spans.observer.observe(StepFinished(step=STEP, kind="phase", name="x", seconds=1.0))
    span = spans.exported()["phase x"]
    assert [(link.context.trace_id, link.context.span_id) for link in span.links] == [
        (int("a" * 32, 16), int("b" * 16, 16))
    ]
    assert "phasebus.linked_to" not in (span.attributes or {})


def test_observers_import_opentelemetry_with_its_rejected_variables_out_of_the_way() -> None:
    command = [sys.executable, "-c", "import phasebus.observers; phasebus.observers.SpanObserver"]
    environment = {**os.environ, "OTEL_PYTHON_CONTEXT": "no_such_context"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert "Traceback" not in ended.stderr
