"""A real OpenTelemetry collector between a start and the backend."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from threading import Event

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from phasebus.bus import StepFinished, StepStarted
from phasebus.observers import SpanObserver
from phasebus.telemetry import RunIdentity, Tracing
from phasebus.telemetry.otel import SpanBatches
from tests.integration.otel.conftest import Start
from tests.support.otlp import OtlpSink, otlp_sink
from tests.support.rotel import rotel
from tests.support.traces import assert_is_one_trace, exported_spans
from tests.support.waiting import wait_until


def arrived(sink: OtlpSink, names: set[str]) -> None:
    wait_until(lambda: names <= {span.name for span in sink.spans}, "the spans have passed the collector")
    assert_is_one_trace(exported_spans(export.content for export in sink.exports))


class SlowExporter(SpanExporter):
    """Accepts nothing until it is released; then counts."""

    def __init__(self) -> None:
        self.released = Event()
        self.names: Counter[str] = Counter()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.released.wait(120)
        self.names.update(span.name for span in spans)
        return SpanExportResult.SUCCESS


def test_otel_start_with_100_000_spans_keeps_its_outer_ones_and_counts_the_others() -> None:
    exporter, count, root, phase = SlowExporter(), 100_000, "f" * 16, "e" * 16
    tracing = Tracing(RunIdentity.fresh("n", {}), exporter, wait_for_flush=lambda thread: thread.join(120))
    observer = SpanObserver(tracing)
    observer.observe(StepStarted(step=root, kind="node", name="n"))
    observer.observe(StepStarted(step=phase, parent=root, kind="phase", name="engine_init"))
    for number in range(1, count - 1):
        step = f"{number:016x}"
        observer.observe(StepStarted(step=step, parent=phase, kind="engine_step", name="load_weights"))
        observer.observe(StepFinished(step=step, parent=phase, kind="engine_step", name="load_weights", seconds=0.0))
    observer.observe(StepFinished(step=phase, parent=root, kind="phase", name="engine_init", seconds=0.0))
    observer.observe(StepFinished(step=root, kind="node", name="n", seconds=0.0))
    exporter.released.set()
    assert not tracing.close()
    assert exporter.names["node init"] == exporter.names["phase engine_init"] == 1
    assert exporter.names.total() + tracing.dropped == count
    assert exporter.names.total() >= SpanBatches().queue


def test_otel_start_is_one_trace_behind_a_collector_that_retries(run: Start, tmp_path: Path) -> None:
    with otlp_sink() as sink:
        sink.answer = lambda number: (503 if number == 0 else 200, {})
        with rotel(tmp_path, sink.url) as collector:
            run(OTEL_EXPORTER_OTLP_ENDPOINT=collector, OTEL_EXPORTER_OTLP_COMPRESSION="gzip")
            arrived(sink, {"node init", "engine init", "load weights"})
