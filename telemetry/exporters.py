"""The exporters that OTEL_TRACES_EXPORTER and OTEL_METRICS_EXPORTER name, each with a thread of its own."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from phasebus.telemetry.collector import SHUTDOWN_FLUSH_SECONDS, Collector
from phasebus.telemetry.metric_push import MetricPush
from phasebus.telemetry.otel import MetricSettings, SpanQueue, TraceSettings
from phasebus.telemetry.otel.settings import Findings

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter, MetricsData
    from opentelemetry.sdk.trace.export import SpanExporter


def wait_briefly(thread: threading.Thread) -> None:
    """Wait for a thread that exports what is left, as long as a collector that is away may delay the end."""
    thread.join(SHUTDOWN_FLUSH_SECONDS)


def span_queues(settings: TraceSettings, collector: Collector | None, findings: Findings) -> tuple[SpanQueue, ...]:
    """Return a queue for each exporter; one that cannot be made is left out and noted in `findings`.

    Args:
        settings: Which exporters there are, and how spans are collected for them.
        collector: Where the exporter ``otlp`` exports to; None leaves it out.
        findings: Where problems are added.
    """
    queues: list[SpanQueue] = []
    if settings.disabled:
        return ()
    for name in dict.fromkeys(settings.exporters):
        if name == "otlp" and collector is None:
            continue
        target = collector.endpoint if name == "otlp" and collector is not None else f"the exporter {name!r}"
        try:
            exporter = _exporter(name, collector)
        except Exception as error:  # noqa: BLE001  # an exporter that cannot be made must not fail a start-up
            findings.problems.append(f"spans are not exported to {target}: {error or type(error).__name__}")
            continue
        wait: Callable[[threading.Thread], None] = wait_briefly
        if name == "otlp" and collector is not None:
            wait = collector.wait_for_flush
        queues.append(SpanQueue(exporter, target, settings.batches, wait))
    return tuple(queues)


def metric_pushes(
    settings: MetricSettings, collector: Collector | None, findings: Findings, collect: Callable[[], MetricsData]
) -> tuple[MetricPush, ...]:
    """Return a push for each exporter of metrics; one that cannot be made is left out and noted in `findings`.

    Args:
        settings: Which exporters there are, and how often metrics are pushed.
        collector: The collector that the exporter ``otlp`` exports to; None leaves that exporter out.
        findings: Where problems are added.
        collect: Returns the current values of all metrics.
    """
    pushes: list[MetricPush] = []
    if settings.disabled:
        return ()
    for name in dict.fromkeys(settings.exporters):
        if name == "otlp" and collector is None:
            continue
        target = collector.endpoint if name == "otlp" and collector is not None else f"the exporter {name!r}"
        try:
            exporter = _metric_exporter(name, collector)
        except Exception as error:  # noqa: BLE001  # an exporter that cannot be made must not fail a start-up
            findings.problems.append(f"metrics are not pushed to {target}: {error or type(error).__name__}")
            continue
        wait = collector.wait_for_flush if name == "otlp" and collector is not None else wait_briefly
        pushes.append(MetricPush(exporter, target, collect, settings.interval, wait))
    return tuple(pushes)


def _exporter(name: str, collector: Collector | None) -> SpanExporter:
    if name == "otlp" and collector is not None:
        return collector.exporter()
    if name == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter(out=sys.stdout)
    exporter: SpanExporter = _installed(name, "traces")
    return exporter


def _metric_exporter(name: str, collector: Collector | None) -> MetricExporter:
    if name == "otlp" and collector is not None:
        return collector.metric_exporter()
    if name == "console":
        from opentelemetry.sdk.metrics.export import ConsoleMetricExporter

        return ConsoleMetricExporter(out=sys.stdout)
    exporter: MetricExporter = _installed(name, "metrics")
    return exporter


def _installed(name: str, signal: str) -> Any:
    """Return the exporter that an installed distribution registers with the name.

    Raises:
        ValueError: No distribution does.
    """
    group = f"opentelemetry_{signal}_exporter"
    for found in entry_points(group=group, name=name):
        return found.load()()
    known = sorted({"otlp", "console", "none", *(each.name for each in entry_points(group=group))})
    raise ValueError(
        f"OTEL_{signal.upper()}_EXPORTER names an exporter that is not installed; there are {', '.join(known)}"
    )
