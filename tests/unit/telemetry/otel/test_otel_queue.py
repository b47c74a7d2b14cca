from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext

from phasebus.telemetry.otel import SpanBatches, SpanQueue
from phasebus.telemetry.otel.rejections import RefusedError
from tests.support.waiting import wait_until


class Exporter(SpanExporter):
    """Accepts what `accepts` says, from the names of the spans."""

    def __init__(self, accepts: Callable[[list[str]], bool] = lambda _: True) -> None:
        self.accepts = accepts
        self.accepted: list[str] = []
        self.requests = 0
        self.closed = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.requests += 1
        names = [span.name for span in spans]
        if not self.accepts(names):
            return SpanExportResult.FAILURE
        self.accepted += names
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self.closed = True


def span(name: str) -> ReadableSpan:
    return ReadableSpan(name, SpanContext(1, 1, False), start_time=1, end_time=2)


def queue_to(exporter: SpanExporter, *, queue: int = 1000, batch: int = 10) -> SpanQueue:
    batches = SpanBatches(queue=queue, batch=batch, delay=0.01)
    return SpanQueue(exporter, "http://c:4318", batches, lambda thread: thread.join(60), pauses=(0.01,))


def test_every_span_is_exported_once_in_order_and_the_exporter_is_closed() -> None:
    exporter = Exporter()
    queue = queue_to(exporter)
    names = [str(number) for number in range(95)]
    for name in names:
        queue.put((span(name),))
    assert queue.close()
    assert exporter.accepted == names
    assert exporter.requests >= 10
    assert exporter.closed


def test_spans_that_a_collector_refuses_are_kept_until_it_accepts_them(caplog: pytest.LogCaptureFixture) -> None:
    away = threading.Event()
    away.set()
    exporter = Exporter(lambda _: not away.is_set())
    queue = queue_to(exporter, batch=2)
    queue.put(span(str(number)) for number in range(20))
    wait_until(lambda: exporter.requests > 15, "the collector has refused every batch")
    away.clear()
    wait_until(lambda: len(exporter.accepted) == 20, "the collector has everything")
    assert sorted(exporter.accepted, key=int) == [str(number) for number in range(20)]
    assert queue.close()
    assert caplog.text.count("spans cannot be exported to http://c:4318") == 1


def test_a_batch_that_is_refused_while_others_are_accepted_is_dropped_and_counted() -> None:
    exporter = Exporter(lambda names: "poison" not in names)
    queue = queue_to(exporter, batch=1)
    queue.put([span("poison")])
    for number in range(50):
        queue.put([span(str(number))])
    wait_until(lambda: queue.dropped == 1, "the poisoned batch is dropped")
    wait_until(lambda: len(exporter.accepted) == 50, "the others are accepted")
    assert not queue.close()


def test_spans_after_a_batch_that_was_dropped_from_an_empty_queue_are_exported() -> None:
    exporter = Exporter(lambda names: "poison" not in names)
    queue = queue_to(exporter, batch=1)
    queue.put([span("poison"), span("first")])
    wait_until(lambda: queue.dropped == 1, "the poisoned batch is dropped")
    queue._thread.join(0.1)  # longer than the pause after a failure
    queue.put([span("second")])
    wait_until(lambda: exporter.accepted == ["first", "second"], "the others are accepted", 30)
    assert not exporter.closed
    assert not queue.close()


def test_spans_that_are_too_many_for_one_request_are_exported_in_smaller_ones(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def accepts(names: list[str]) -> bool:
        if len(names) > 3:
            raise RefusedError("it answers HTTP 413", too_large=True)
        return True

    exporter = Exporter(accepts)
    queue = queue_to(exporter)
    queue.put(span(str(number)) for number in range(20))
    assert queue.close()
    assert sorted(exporter.accepted, key=int) == [str(number) for number in range(20)]
    assert "cannot be exported" not in caplog.text


def test_span_that_is_too_large_by_itself_costs_no_other_span(caplog: pytest.LogCaptureFixture) -> None:
    def accepts(names: list[str]) -> bool:
        if "large" in names:
            raise RefusedError("it answers HTTP 413", too_large=True)
        return True

    exporter = Exporter(accepts)
    queue = queue_to(exporter)
    queue.put([span("large"), *(span(str(number)) for number in range(9))])
    assert not queue.close()
    assert sorted(exporter.accepted) == [str(number) for number in range(9)]
    assert queue.dropped == 1
    assert "spans cannot be exported to http://c:4318 (it answers HTTP 413)" in caplog.text


def test_reason_of_a_collector_is_logged_in_one_bounded_line(caplog: pytest.LogCaptureFixture) -> None:
    def accepts(_: list[str]) -> bool:
        raise RefusedError("first\nERROR second " + "x" * 100_000)

    queue = queue_to(Exporter(accepts))
    queue.put([span("x")])
    assert not queue.close()
    (message,) = (record.getMessage() for record in caplog.records)
    assert "first\\nERROR second" in message
    assert len(message) < 1000


def test_what_finds_no_room_is_dropped_and_counted() -> None:
    queue = queue_to(Exporter(lambda _: False), queue=5, batch=5)
    queue.put(span(str(number)) for number in range(8))
    assert queue.dropped == 3
    assert not queue.close()
    assert queue.dropped == 8


def test_the_end_waits_no_longer_than_the_deadline_and_counts_what_was_left(
    caplog: pytest.LogCaptureFixture,
) -> None:
    release = threading.Event()
    exporter = Exporter(lambda _: release.wait())
    queue = SpanQueue(exporter, "c", SpanBatches(delay=0.01), lambda thread: thread.join(0.1))
    queue.put([span("x")])
    assert not queue.close()
    assert queue.dropped == 1
    assert "the last spans were not accepted in time" in caplog.text
    release.set()


def test_a_span_with_odd_values_costs_no_other_span() -> None:
    exporter = Exporter()
    queue = queue_to(exporter)
    odd = ReadableSpan("bad\udcff", SpanContext(1, 1, False), attributes={"n": 2**70, "s": "\udcff"}, start_time=1)
    queue.put([span("a"), odd, span("b")])
    assert queue.close()
    assert exporter.accepted == ["a", r"bad\udcff", "b"]


def test_outer_spans_find_room_in_a_full_queue_and_are_exported_first(caplog: pytest.LogCaptureFixture) -> None:
    answering = threading.Event()
    exporter = Exporter(lambda _: answering.wait(60))
    queue = queue_to(exporter, queue=20, batch=10)
    root = ReadableSpan(
        "root", SpanContext(1, 1, False), attributes={"phasebus.kind": "node"}, start_time=1, end_time=2
    )
    queue.put(span(str(number)) for number in range(30))
    queue.put([root])
    answering.set()
    assert not queue.close()
    assert queue.dropped == 10
    assert exporter.accepted.index("root") <= 10  # at most the batch that was being exported is before it
    assert "20 of them wait, and OTEL_BSP_MAX_QUEUE_SIZE allows no more" in caplog.text


def test_an_unused_queue_starts_no_thread() -> None:
    exporter = Exporter()
    queue = queue_to(exporter)
    assert not queue._thread.is_alive()
    assert queue.close()
    assert exporter.closed
