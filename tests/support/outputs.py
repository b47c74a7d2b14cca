"""All outputs of steps, filled from events: each has its text when the events have been observed."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from rich.console import Console

from phasebus.bus import StepEvent, StepProgress, StepStarted
from phasebus.observers import (
    JournalObserver,
    LogObserver,
    MetricsObserver,
    ProgressObserver,
    SpanObserver,
    StatusObserver,
    TimelineObserver,
)
from phasebus.telemetry import Metrics, RunIdentity, Status, Timeline, Tracing
from phasebus.telemetry.analysis import blame, critical_path, diff, gaps, page_state, perfetto, plot, stragglers
from phasebus.telemetry.journal import JournalWriter, Run, read_journal
from phasebus.telemetry.service.page import page_of


class Outputs:
    """Observers of every kind, and what each has made of the events.

    Args:
        journal: The path of the journal; None writes none.
        threads: Whether there are the outputs that take a thread: spans and progress bars.
    """

    def __init__(self, journal: Path | None = None, *, threads: bool = True) -> None:
        identity = RunIdentity.fresh("n", {})
        self.timeline = Timeline(identity)
        self._journal = journal
        self._metrics = Metrics("1")
        self._status = Status()
        self._terminal, self._bars, self._log = io.StringIO(), io.StringIO(), io.StringIO()
        self._spans = InMemorySpanExporter()
        self._tracing = Tracing(identity, self._spans, environment={}) if threads else None
        logger = logging.Logger("outputs")  # noqa: LOG001  # one of its own
        logger.addHandler(logging.StreamHandler(self._log))
        self._writer = None if journal is None else JournalObserver(JournalWriter(journal, identity))
        self._observers: list[Any] = [
            StatusObserver(self._status, self._metrics),
            TimelineObserver(self.timeline),
            MetricsObserver(self._metrics, identity.trace),
            LogObserver(logger),
            ProgressObserver(Console(file=self._terminal, width=100), interval=0.0),
            *([ProgressObserver(Console(file=self._bars, width=100, force_terminal=True))] if threads else []),
            *([self._writer] if self._writer is not None else []),
        ]
        self._span_observer = SpanObserver(self._tracing) if self._tracing is not None else None

    def observe(self, events: Iterable[StepEvent]) -> None:
        """Pass events to all observers."""
        for event in events:
            for observer in self._observers:
                if not (isinstance(observer, ProgressObserver) and isinstance(event, StepStarted)):
                    observer.observe(event)
            if self._span_observer is not None and not isinstance(event, StepProgress):
                self._span_observer.observe(event)  # type: ignore[arg-type]

    def texts(self, *, metrics: bool = True) -> dict[str, str]:
        """Close the observers; return what leaves through each output, also of the metrics unless `metrics` is false."""
        for observer in self._observers:
            if isinstance(observer, ProgressObserver):
                observer.close()
        texts = {
            "terminal": self._terminal.getvalue(),
            "log": self._log.getvalue(),
            "status": json.dumps(self._status.describe(), ensure_ascii=False, allow_nan=False),
            "timeline": encoded_timeline(self.timeline),
        }
        if metrics:
            texts["metrics"] = self._metrics.render("application/openmetrics-text")[0].decode()
        if self._span_observer is not None and self._tracing is not None:
            self._span_observer.close()
            self._tracing.close()
            spans = encode_spans(self._spans.get_finished_spans())
            texts["bars"] = self._bars.getvalue()
            texts["spans"] = spans.SerializeToString().decode("utf-8", "replace") + str(spans)
        if self._writer is not None and self._journal is not None:
            self._writer.close()
            run = read_journal(self._journal)
            assert run.skipped == 0
            texts |= {"journal": self._journal.read_text("utf-8"), **reports_of(run)}
        return texts


def encoded_timeline(timeline: Timeline) -> str:
    """Return all steps of `timeline` as a reader receives them."""
    _, about, ids = timeline.contents()
    steps, _ = timeline.encoded_steps(ids, 0, 1 << 30)
    return f'{about[:-1]}, "steps": [{steps}]}}'


def reports_of(run: Run) -> dict[str, str]:
    """Return every report of a run."""
    return {
        "perfetto": json.dumps(perfetto(run), ensure_ascii=False, allow_nan=False),
        "page": page_of(page_state(run)),
        "plot": plot(run),
        "reports": "\n".join(str(each(run)) for each in (blame, critical_path, gaps, stragglers)) + str(diff(run, run)),
    }
