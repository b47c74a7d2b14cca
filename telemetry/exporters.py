"""The exporters that OTEL_TRACES_EXPORTER and OTEL_METRICS_EXPORTER name, each with a thread of its own."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, TypeVar

from phasebus.telemetry.collector import SHUTDOWN_FLUSH_SECONDS, Collector
from phasebus.telemetry.metric_push import MetricPush
from phasebus.telemetry.otel import MetricSettings, SpanQueue, TraceSettings
from phasebus.telemetry.otel.findings import Findings

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter, MetricsData
    from opentelemetry.sdk.trace.export import SpanExporter

E = TypeVar("E")
Wait = Callable[[threading.Thread], None]


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
    if settings.disabled:
        return ()
    made = _exporters(settings.exporters, collector, findings, "spans are not exported", _span_exporter)
    return tuple(SpanQueue(exporter, target, settings.batches, wait) for exporter, target, wait in made)


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
    if settings.disabled:
        return ()
    made = _exporters(settings.exporters, collector, findings, "metrics are not pushed", _metric_exporter)
    return tuple(MetricPush(exporter, target, collect, settings.interval, wait) for exporter, target, wait in made)


def _exporters(
    names: Iterable[str],
    collector: Collector | None,
    findings: Findings,
    failure: str,
    make: Callable[[str, Collector | None], E],
) -> Iterator[tuple[E, str, Wait]]:
    """Return each exporter that can be made, what it exports to, and how its thread is waited for at the end."""
    for name in dict.fromkeys(names):
        target = f"the exporter {name!r}"
        wait: Wait = wait_briefly
        if name == "otlp":
            if collector is None:
                continue
            target, wait = collector.endpoint, collector.wait_for_flush
        try:
            yield make(name, collector), target, wait
        except Exception as error:  # noqa: BLE001  # an exporter that cannot be made must not fail a start-up
            findings.problems.append(f"{failure} to {target}: {error or type(error).__name__}")


def _span_exporter(name: str, collector: Collector | None) -> SpanExporter:
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
