"""vLLM's spans, told of when they begin: its exporter sends them only when they have ended."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextvars import ContextVar

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.trace.status import StatusCode

from phasebus.initializer.engines.vllm.inside.reporter import Reporter

initial_attributes: ContextVar[Mapping[str, int]] = ContextVar("phasebus_known_beforehand", default={})  # noqa: B039
"""Attributes for the next span, of what is known only where it is begun."""


def watch_spans(reporter: Reporter) -> None:
    """Have `reporter` told of every span of this process from now on, and of the one that is running now."""
    provider = trace.get_tracer_provider()
    # A front end has none unless requests are traced, a worker on Ray none at all.
    if not isinstance(provider, TracerProvider):
        from vllm.tracing import init_tracer

        endpoint = os.environ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"]
        worker = ray_worker_name()
        kind = "front_end" if worker is None else "worker"
        names = {"vllm.process_kind": kind, "vllm.process_name": worker or kind}
        init_tracer(f"vllm.{kind}", endpoint, names)
        provider = trace.get_tracer_provider()
        assert isinstance(provider, TracerProvider)  # noqa: S101  # that is what init_tracer sets
    watching = _Watching(reporter)
    if isinstance(running := trace.get_current_span(), Span):
        watching.on_start(running)
    provider.add_span_processor(watching)


def ray_worker_name() -> str | None:
    """Return what this process is called if it is a worker of vLLM's executor on Ray, which calls its actors by them.

    Source: vllm/v1/executor/ray_utils.py (`build_actor_name`: ``vllm_Worker_INSTANCE_TP0_PP1``).
    """
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    name = ray.get_runtime_context().get_actor_name() or ""
    return "_".join(("Worker", *name.split("_")[3:])) if name.startswith("vllm_Worker_") else None


def began_ns() -> int | None:
    """Return when the span began that is running now, in nanoseconds since the epoch."""
    running = trace.get_current_span()
    return running.start_time if isinstance(running, ReadableSpan) else None


def process_name() -> str:
    """Return what vLLM calls this process."""
    provider = trace.get_tracer_provider()
    resource = provider.resource.attributes if isinstance(provider, TracerProvider) else {}
    return str(resource.get("vllm.process_name") or "front_end")


class _Watching(SpanProcessor):
    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Tell that a span has begun."""
        if known := initial_attributes.get():
            span.set_attributes(known)
        self._reporter.send(_notice("started", span, span.start_time))

    def on_end(self, span: ReadableSpan) -> None:
        """Tell that a span has ended."""
        notice = _notice("ended", span, span.end_time) | {"began_ns": span.start_time}
        if span.status.status_code is StatusCode.ERROR:
            notice["error"] = span.status.description or "failed"
        self._reporter.send(notice)


def _notice(event: str, span: ReadableSpan, time_ns: int | None) -> dict[str, object]:
    context = span.get_span_context()
    assert context is not None  # noqa: S101  # every span of the SDK has one
    attributes = span.attributes or {}
    return {
        "event": event,
        "step": f"{context.span_id:016x}",
        "parent": f"{span.parent.span_id:016x}" if span.parent is not None else None,
        "name": span.name,
        "time_ns": time_ns,
        "pid": os.getpid(),
        "process": str(span.resource.attributes.get("vllm.process_name") or "front_end"),
        "attributes": {key: value for key, value in attributes.items() if isinstance(value, str | int | float | bool)},
        "traced": True,
    }
