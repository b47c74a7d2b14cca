"""Notices of vLLM's spans, also when they begin: its exporter sends them only when they have ended."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.trace.status import StatusCode

from phasebus.initializer.engines.vllm.inside import ids, processes, ranks
from phasebus.initializer.engines.vllm.inside.compile_times import with_compilation
from phasebus.initializer.engines.vllm.inside.ranks import PID_ATTRIBUTE, PROCESS_ATTRIBUTE, ProcessIdentity
from phasebus.initializer.engines.vllm.inside.reporter import Reporter

initial_attributes: ContextVar[Mapping[str, int]] = ContextVar("phasebus_initial_attributes", default={})  # noqa: B039
"""Attributes for the next span, where they are known only to the code that begins it."""


_STACK_TRACE = "exception.stacktrace"
_MAX_STACK_CHARACTERS = 8192


def report_spans(reporter: Reporter) -> SpanReporter:
    """Report every span of this process from now on, and the one that is running now."""
    ids.use_system_ids_in_vllm()
    identity = ranks.this_process()
    provider = ranks.current_tracer_provider()
    # A front end has none unless requests are traced, a worker on Ray none at all.
    if not isinstance(provider, TracerProvider):
        from vllm.tracing import init_tracer

        endpoint = os.environ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"]
        kind = "worker" if identity.name.startswith("Worker") else ranks.FRONT_END
        init_tracer(f"vllm.{kind}", endpoint, {"vllm.process_kind": kind, "vllm.process_name": identity.name})
        provider = ranks.current_tracer_provider()
        assert isinstance(provider, TracerProvider)  # noqa: S101  # that is what init_tracer sets
    ids.use_system_ids(provider)
    processor = SpanReporter(reporter, identity)
    if isinstance(running := trace.get_current_span(), Span):
        processor.on_start(running)
    provider.add_span_processor(processor)
    return processor


def start_up_context() -> Context:
    """Return the context of the step that this process belongs to."""
    return TraceContextTextMapPropagator().extract({"traceparent": os.environ.get("TRACEPARENT", "")})


def current_span_start_ns() -> int | None:
    """Return the beginning of the span that is running now, in nanoseconds since the epoch; None if there is none."""
    running = trace.get_current_span()
    return running.start_time if isinstance(running, ReadableSpan) else None


def _stack_trace(span: ReadableSpan) -> dict[str, str]:
    """Return the last part of the stack trace that OpenTelemetry has recorded on a span that failed, as an attribute."""
    stacks = [str((event.attributes or {}).get(_STACK_TRACE, "")) for event in span.events]
    return {_STACK_TRACE: stacks[-1][-_MAX_STACK_CHARACTERS:]} if stacks and stacks[-1] else {}


class SpanReporter(SpanProcessor):
    """Reports the spans of this process as they begin and end.

    Args:
        reporter: Sends the reports.
        identity: This process.
    """

    def __init__(self, reporter: Reporter, identity: ProcessIdentity) -> None:
        self._reporter = reporter
        self._identity = identity
        self._pid = os.getpid()
        self._until_next: trace.Span | None = None

    def begin_until_next(self, name: str) -> None:
        """Begin a span that ends when the next one begins: for work that no function encloses."""
        self._until_next = trace.get_tracer("phasebus").start_span(name, start_up_context())

    def add_compilation(self, nanoseconds: int, size: int) -> None:
        """Add the compilation of a source to the span that runs in this thread.

        Args:
            nanoseconds: How long it took.
            size: The size of the source in bytes.
        """
        is_main = threading.current_thread() is threading.main_thread()
        span = self._until_next if self._until_next is not None and is_main else trace.get_current_span()
        if not isinstance(span, Span) or not span.is_recording():
            return
        span.set_attributes(with_compilation(span.attributes or {}, nanoseconds, size))

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Report that a span has begun."""
        if self._until_next is not None:
            until_next, self._until_next = self._until_next, None
            until_next.end(span.start_time)
        if self._pid != os.getpid():
            self._adopt_fork(span.start_time or time.time_ns())
        span.set_attributes({PROCESS_ATTRIBUTE: self._identity.name, PID_ATTRIBUTE: self._pid})
        if initial := initial_attributes.get():
            span.set_attributes(initial)
        self._reporter.send(self._notice("started", span, span.start_time))

    def on_end(self, span: ReadableSpan) -> None:
        """Report that a span has ended."""
        notice = self._notice("ended", span, span.end_time) | {"began_ns": span.start_time}
        if span.status.status_code is StatusCode.ERROR:
            notice["error"] = span.status.description or "failed"
            notice["attributes"] = {**notice["attributes"], **_stack_trace(span)}
        self._reporter.send(notice)

    def _adopt_fork(self, began_ns: int) -> None:
        """Report as the process that was forked from the one where the plugin was loaded: vLLM loads it once."""
        self._pid = os.getpid()
        self._identity = ranks.this_process()
        processes.report_process_start(self._reporter, self._identity, began_ns, imported=False)

    def _notice(self, event: str, span: ReadableSpan, time_ns: int | None) -> dict[str, Any]:
        context = span.get_span_context()
        assert context is not None  # noqa: S101  # every span of the SDK has one
        plain = {
            key: value for key, value in (span.attributes or {}).items() if isinstance(value, str | int | float | bool)
        }
        return {
            "event": event,
            "step": f"{context.span_id:016x}",
            "parent": f"{span.parent.span_id:016x}" if span.parent is not None else None,
            "name": span.name,
            "time_ns": time_ns,
            "pid": self._pid,
            "process": self._identity.name,
            "attributes": {**plain, **self._identity.attributes},
            "traced": True,
        }
