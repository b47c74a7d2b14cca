"""An exporter of metrics over HTTP, together with the answers of the server that it takes for a success."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData

from phasebus.telemetry.otel.rejections import Rejections


class CollectorMetricExporter(MetricExporter):
    """An exporter to a collector.

    Args:
        exporter: The exporter of OpenTelemetry.
        rejections: Reads the responses to it.
    """

    def __init__(self, exporter: MetricExporter, rejections: Rejections) -> None:
        super().__init__()
        self._exporter = exporter
        self._rejections = rejections

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        """Export metrics.

        Raises:
            RefusedError: They were not accepted, and the cause is known.
        """
        self._rejections.refusal = None
        result = self._exporter.export(metrics_data, timeout_millis, **kwargs)
        if self._rejections.refusal is not None:
            raise self._rejections.refusal
        return result

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Return True: nothing is buffered."""
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """End the exporter."""
        self._exporter.shutdown(timeout_millis, **kwargs)
