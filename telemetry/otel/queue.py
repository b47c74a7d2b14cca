"""Spans on their way to an exporter: collected into batches, and kept while they are refused."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from phasebus.telemetry.otel.sdk import suppressed_instrumentation  # isort: skip  # before anything of the SDK
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from phasebus.telemetry.otel.printable import printable_span
from phasebus.telemetry.otel.rejections import CollectorExporter, RefusedError
from phasebus.telemetry.otel.settings import SpanBatches
from phasebus.telemetry.redaction import redact, redact_name

logger = logging.getLogger("phasebus.telemetry")

_PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""How long to wait after each failure in a row, in seconds."""

_OUTER_KINDS = frozenset({"cluster", "node", "phase", "engine", "serve"})
_OUTER_ROOM = 1000
"""How many spans of these kinds find room in a queue that is full. They are also exported before all others that wait: without
them, the others have no parent in the trace."""

_ATTEMPTS = 3
"""How often a batch is refused before it is dropped, if other batches are accepted meanwhile."""


@dataclass(slots=True)
class _Batch:
    spans: list[ReadableSpan]
    attempts: int = 0
    accepted_before: int = 0


class SpanQueue:
    """Exports spans from a thread of its own; never blocks or raises where spans are put.

    OpenTelemetry's `BatchSpanProcessor` drops a batch that its exporter could not deliver. This keeps it and tries again:
    a collector that restarts or refuses for a while costs no span. What finds no room is dropped and counted.

    Args:
        exporter: Where spans go.
        target: What the exporter is called in messages.
        batches: How spans are collected.
        wait_for_flush: Waits for a thread that exports what is left, and returns after a deadline of its own.
        pauses: How long to wait after each failure in a row, in seconds.
    """

    def __init__(
        self,
        exporter: SpanExporter,
        target: str,
        batches: SpanBatches,
        wait_for_flush: Callable[[threading.Thread], None],
        pauses: tuple[float, ...] = _PAUSES,
    ) -> None:
        self._exporter = exporter
        self._target = target
        self._batches = batches
        self._wait_for_flush = wait_for_flush
        self._pauses = pauses
        self._new: deque[ReadableSpan] = deque()
        self._new_outer: deque[ReadableSpan] = deque()
        self._refused: deque[_Batch] = deque()
        self._waiting = 0
        self._changed = threading.Condition()
        self._closing = False
        self._warned = False
        self._failures = 0
        self._accepted = 0
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="phasebus span export", daemon=True)

    def put(self, spans: Iterable[ReadableSpan]) -> None:
        """Have `spans` exported."""
        full = False
        with self._changed:
            before = self._pending()
            for span in spans:
                outer = _is_outer(span)
                if self._closing or self._waiting >= self._batches.queue + (_OUTER_ROOM if outer else 0):
                    self.dropped += 1
                    full = not self._closing
                else:
                    self._waiting += 1
                    (self._new_outer if outer else self._new).append(span)
            if (pending := self._pending()) and self._thread.ident is None:
                self._thread.start()
            if before == 0 or pending >= self._batches.batch:  # what the thread waits for; a wake-up costs both threads
                self._changed.notify()
        if full:
            self._warn(f"{self._batches.queue} of them wait, and OTEL_BSP_MAX_QUEUE_SIZE allows no more")

    def close(self) -> bool:
        """Export what is left, for as long as `wait_for_flush` waits; return whether all of it was exported."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.ident is None:
            self._exporter.shutdown()
            return True
        self._wait_for_flush(self._thread)
        if self._thread.is_alive():
            problem = self._exporter.problem if isinstance(self._exporter, CollectorExporter) else ""
            self._warn(f"the last spans were not accepted in time{f': {problem}' if problem else ''}")
            with self._changed:
                self.dropped += self._waiting
        return not self._thread.is_alive() and self.dropped == 0

    def _run(self) -> None:
        while (batch := self._next()) is not None:
            failure, too_large = self._export(batch.spans)
            with self._changed:
                if failure is None:
                    self._waiting -= len(batch.spans)
                    self._accepted += 1
                    self._failures = 0
                elif too_large and len(batch.spans) > 1:
                    self._split(batch.spans)
                    failure = None
                else:
                    self._failures += 1
                    self._keep_or_drop(batch)
            if failure is not None:
                self._warn(failure)
        self._exporter.shutdown()

    def _next(self) -> _Batch | None:
        """Return the next batch once it is due; None once everything is exported and the queue closes."""
        with self._changed:
            self._wait_until_due()
            size = min(self._pending(), self._batches.batch)
            if size:
                spans = [(self._new_outer or self._new).popleft() for _ in range(size)]
                return _Batch(spans, accepted_before=self._accepted)
            return self._refused.popleft() if self._refused else None

    def _pending(self) -> int:
        return len(self._new) + len(self._new_outer)

    def _wait_until_due(self) -> None:
        if self._failures:
            pause = self._pauses[min(self._failures, len(self._pauses)) - 1]
            self._changed.wait_for(lambda: self._closing, pause)
        self._changed.wait_for(lambda: self._pending() or self._refused or self._closing)
        if not self._failures and not self._refused:
            self._changed.wait_for(lambda: self._pending() >= self._batches.batch or self._closing, self._batches.delay)

    def _split(self, spans: list[ReadableSpan]) -> None:
        """Have `spans`, which are too many for one request, exported in two."""
        half = (len(spans) + 1) // 2
        self._refused.extend(_Batch(each, accepted_before=self._accepted) for each in (spans[:half], spans[half:]))

    def _keep_or_drop(self, batch: _Batch) -> None:
        batch.attempts += 1
        it_is_the_batch = batch.attempts >= _ATTEMPTS and self._accepted > batch.accepted_before
        if self._closing or it_is_the_batch:
            self._waiting -= len(batch.spans)
            self.dropped += len(batch.spans)
        else:
            self._refused.append(batch)

    def _export(self, spans: list[ReadableSpan]) -> tuple[str | None, bool]:
        """Return why `spans` were not accepted, None if they were; and whether fewer of them may be."""
        try:
            with suppressed_instrumentation():
                result = self._exporter.export([printable_span(span) for span in spans])
        except RefusedError as error:
            return str(error), error.too_large
        except Exception as error:  # noqa: BLE001  # whatever it is, it must not reach the start-up
            return f"{type(error).__name__}: {error}", False
        self._count_rejected()
        return None if result is SpanExportResult.SUCCESS else "they were not accepted", False

    def _count_rejected(self) -> None:
        """Count the spans that the collector rejects in a success; sent again, they would be rejected again."""
        number, why = self._exporter.take_rejected() if isinstance(self._exporter, CollectorExporter) else (0, "")
        if number:
            with self._changed:
                self.dropped += number
            self._warn(f"{number} of them are rejected: {why or 'without a reason'}")

    def _warn(self, why: str) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(
                "spans cannot be exported to %s (%s); the start-up goes on without",
                redact(self._target),
                redact_name(why),
            )


def _is_outer(span: ReadableSpan) -> bool:
    return (span.attributes or {}).get("phasebus.kind") in _OUTER_KINDS
