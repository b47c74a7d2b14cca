"""A real OpenTelemetry collector between a start and the backend."""

from __future__ import annotations

from pathlib import Path

from tests.integration.otel.conftest import Start
from tests.support.otlp import OtlpSink, otlp_sink
from tests.support.rotel import rotel
from tests.support.traces import assert_is_one_trace, exported_spans
from tests.support.waiting import wait_until


def arrived(sink: OtlpSink, names: set[str]) -> None:
    wait_until(lambda: names <= {span.name for span in sink.spans}, "the spans have passed the collector")
    assert_is_one_trace(exported_spans(export.content for export in sink.exports))


def test_otel_start_is_one_trace_behind_a_collector_that_retries(run: Start, tmp_path: Path) -> None:
    with otlp_sink() as sink:
        sink.answer = lambda number: (503 if number == 0 else 200, {})
        with rotel(tmp_path, sink.url) as collector:
            run(OTEL_EXPORTER_OTLP_ENDPOINT=collector, OTEL_EXPORTER_OTLP_COMPRESSION="gzip")
            arrived(sink, {"node init", "engine init", "load weights"})
