from __future__ import annotations

import threading
from collections.abc import Sequence
from threading import Thread

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from phasebus.telemetry import RunIdentity, Tracing

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
    assert "spans cannot be exported to the collector (it did not take the last ones in time)" in caplog.text
    exporter.release.set()


class Failing(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        raise ConnectionError("api-key=hunter2secret was refused")

    def shutdown(self) -> None:
        pass


def test_an_exporter_that_fails_is_told_of_once_without_secrets(caplog: pytest.LogCaptureFixture) -> None:
    tracing = Tracing(RunIdentity.fresh(environment={}), Failing(), delay=0.01, wait_for_flush=Thread.join)
    for _ in range(600):  # more than one batch
        tracing.start("x", step=STEP, parent=None, time_ns=1, attributes={}).end(2)
    assert tracing.close()
    assert caplog.text.count("spans cannot be exported") == 1
    assert "hunter2secret" not in caplog.text
