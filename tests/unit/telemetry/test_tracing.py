from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from threading import Thread

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext

from phasebus.telemetry import RunIdentity, Tracing
from phasebus.telemetry.otel import TraceSettings

STEP, PARENT = "a" * 16, "b" * 16


def test_a_span_has_the_ids_of_its_step_and_its_run() -> None:
    exporter, identity = InMemorySpanExporter(), RunIdentity.fresh("node-1", {})
    tracing = Tracing(identity, exporter)
    tracing.start("phase download", step=STEP, parent=PARENT, time_ns=5, attributes={"x": 1}).end(9)
    assert tracing.close()
    (span,) = exporter.get_finished_spans()
    assert span.context is not None
    assert span.parent is not None
    assert f"{span.context.trace_id:032x}" == identity.trace
    assert f"{span.context.span_id:016x}" == STEP
    assert f"{span.parent.span_id:016x}" == PARENT
    assert (span.name, span.start_time, span.end_time) == ("phase download", 5, 9)
    assert span.resource.attributes["phasebus.run"] == identity.run


def test_the_outermost_span_hangs_under_what_caused_the_run() -> None:
    exporter = InMemorySpanExporter()
    identity = RunIdentity(run="r", trace="c" * 32, node="n", parent="d" * 16)
    tracing = Tracing(identity, exporter)
    tracing.start("node init", step=STEP, parent=None, time_ns=1, attributes={}).end(2)
    tracing.close()
    (span,) = exporter.get_finished_spans()
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == "d" * 16


@pytest.mark.parametrize(
    ("state", "expected"), [("vendor=1, other=2", "vendor=1,other=2"), ("no member", ""), ("", ""), (None, "")]
)
def test_spans_of_the_run_inherit_the_trace_state_of_the_caller(state: str | None, expected: str) -> None:
    environment = {"TRACEPARENT": f"00-{'c' * 32}-{'d' * 16}-01"} | ({} if state is None else {"TRACESTATE": state})
    assert state_of_span(environment, environment) == expected


def test_trace_state_without_its_trace_is_not_used() -> None:
    caller = {"TRACEPARENT": f"00-{'c' * 32}-{'d' * 16}-01", "TRACESTATE": "vendor=1"}
    assert state_of_span({}, caller) == state_of_span({}, {"TRACESTATE": "vendor=1"}) == ""


def state_of_span(of_identity: dict[str, str], environment: dict[str, str]) -> str:
    exporter = InMemorySpanExporter()
    tracing = Tracing(RunIdentity.fresh("n", of_identity), exporter, environment=environment)
    tracing.start("node init", step=STEP, parent=None, time_ns=1, attributes={}).end(2)
    tracing.close()
    (span,) = exporter.get_finished_spans()
    assert span.context is not None
    return str(span.context.trace_state.to_header())


def test_the_global_provider_is_left_alone() -> None:
    before = trace.get_tracer_provider()
    Tracing(RunIdentity.fresh(environment={}), InMemorySpanExporter()).close()
    assert trace.get_tracer_provider() is before


class Hanging(SpanExporter):
    def __init__(self) -> None:
        self.release = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.release.wait()
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        pass


def test_an_exporter_that_hangs_is_left_behind_at_the_deadline(caplog: pytest.LogCaptureFixture) -> None:
    exporter = Hanging()
    tracing = Tracing(RunIdentity.fresh(environment={}), exporter, wait_for_flush=lambda thread: thread.join(0.2))
    tracing.start("node init", step=STEP, parent=None, time_ns=1, attributes={}).end(2)
    assert not tracing.close()
    assert "spans cannot be exported to the collector (the last spans were not accepted in time)" in caplog.text
    exporter.release.set()


class Failing(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        raise ConnectionError("api-key=hunter2secret was refused")

    def shutdown(self) -> None:
        pass


def test_an_exporter_that_fails_is_reported_once_without_secrets(caplog: pytest.LogCaptureFixture) -> None:
    tracing = Tracing(RunIdentity.fresh(environment={}), Failing(), delay=0.01, wait_for_flush=Thread.join)
    for _ in range(600):  # more than one batch
        tracing.start("x", step=STEP, parent=None, time_ns=1, attributes={}).end(2)
    assert not tracing.close()
    assert tracing.dropped == 600
    assert caplog.text.count("spans cannot be exported") == 1
    assert "hunter2secret" not in caplog.text


def exported(identity: RunIdentity, tracing_of: Callable[[SpanExporter], Tracing]) -> list[str]:
    """Return the names of the exported spans: of the run, of an engine's process, and of two other traces."""
    exporter = InMemorySpanExporter()
    tracing = tracing_of(exporter)
    tracing.start("own", step=STEP, parent=None, time_ns=1, attributes={}).end(2)
    for name, sampled in (("request 00", False), ("request 01", True)):
        span = tracing.start(
            name, step=STEP, parent=PARENT, time_ns=1, attributes={}, trace_id=f"{7:032x}", parent_sampled=sampled
        )
        span.end(2)
    contexts = (("engine", int(identity.trace, 16)), ("engine iteration", 7))
    tracing.forward(ReadableSpan(name, SpanContext(trace_id, 5, False)) for name, trace_id in contexts)
    tracing.close()
    return sorted(span.name for span in exporter.get_finished_spans())


@pytest.mark.parametrize(
    ("sampler", "flags", "names"),
    [
        ("", "", ["engine", "engine iteration", "own", "request 01"]),
        ("", "01", ["engine", "engine iteration", "own", "request 01"]),
        ("", "00", ["engine iteration", "request 01"]),
        ("parentbased_always_off", "", ["engine iteration", "request 01"]),
        ("always_on", "00", ["engine", "engine iteration", "own", "request 00", "request 01"]),
        ("always_off", "01", []),
    ],
)
def test_a_trace_is_exported_whole_or_not_at_all(sampler: str, flags: str, names: list[str]) -> None:
    parent = {"TRACEPARENT": f"00-{'c' * 32}-{'d' * 16}-{flags}"} if flags else {}
    identity = RunIdentity.fresh("n", parent)
    settings = TraceSettings.from_environment({"OTEL_TRACES_SAMPLER": sampler})
    assert exported(identity, lambda exporter: Tracing(identity, exporter, settings=settings)) == names


def test_a_member_of_a_run_samples_as_the_process_that_started_it() -> None:
    settings = TraceSettings.from_environment({"OTEL_TRACES_SAMPLER": "parentbased_always_off"})
    member = RunIdentity.fresh("n", {}).of_member("m", PARENT)
    assert "own" not in exported(member, lambda exporter: Tracing(member, exporter, settings=settings))


def test_a_span_has_at_most_the_attributes_that_the_limits_allow() -> None:
    exporter = InMemorySpanExporter()
    settings = TraceSettings.from_environment({"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "2"})
    tracing = Tracing(RunIdentity.fresh(environment={}), exporter, settings=settings)
    tracing.start("x", step=STEP, parent=None, time_ns=1, attributes={"a": 1, "b": 2, "c": 3}).end(2)
    tracing.close()
    (span,) = exporter.get_finished_spans()
    assert len(span.attributes or {}) == 2


def test_a_step_of_a_trace_whose_id_is_no_trace_id_is_of_the_run() -> None:
    exporter, identity = InMemorySpanExporter(), RunIdentity.fresh(environment={})
    tracing = Tracing(identity, exporter)
    tracing.start("x", step=STEP, parent="not hex", time_ns=1, attributes={}, trace_id="not hex").end(2)
    tracing.close()
    (span,) = exporter.get_finished_spans()
    assert span.context is not None
    assert f"{span.context.trace_id:032x}" == identity.trace
