"""Pushing metrics to an exporter: at an interval, and at the end with a deadline."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from phasebus.telemetry.redaction import redact, redact_name

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter, MetricsData

logger = logging.getLogger("phasebus.telemetry")


class MetricPush:
    """Pushes all metrics to an exporter, from a thread of its own; never blocks or raises elsewhere.

    OpenTelemetry's `PeriodicExportingMetricReader` needs instruments of its SDK, waits for the exporter at its end for as
    long as that retries, and stops for good at the exporter's first error.

    Args:
        exporter: The exporter.
        target: The name of the exporter in messages.
        collect: Returns the current values of all metrics.
        interval: The time between two exports, in seconds.
        wait_for_flush: Waits for a thread that exports the last values, and returns after a deadline of its own.
    """

    def __init__(
        self,
        exporter: MetricExporter,
        target: str,
        collect: Callable[[], MetricsData],
        interval: float,
        wait_for_flush: Callable[[threading.Thread], None],
    ) -> None:
        self._exporter = exporter
        self._target = target
        self._collect = collect
        self._interval = interval
        self._wait_for_flush = wait_for_flush
        self._changed = threading.Condition()
        self._requested = False
        self._closing = False
        self._warned = False
        self._thread = threading.Thread(target=self._run, name="phasebus metrics", daemon=True)

    def start(self) -> None:
        """Start to push."""
        self._thread.start()

    def push_now(self) -> None:
        """Push without waiting for the interval, and return at once."""
        with self._changed:
            self._requested = True
            self._changed.notify()

    def close(self) -> None:
        """Push the last values, and return once they have arrived or the deadline has passed."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._wait_for_flush(self._thread)
            if self._thread.is_alive():
                self._warn("the last values were not accepted in time")

    def _run(self) -> None:
        from phasebus.telemetry.otel.sdk import suppressed_instrumentation

        logging.getLogger("opentelemetry").addHandler(logging.NullHandler())  # its log of every attempt
        closing = False
        while not closing:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or self._requested, self._interval)
                closing, self._requested = self._closing, False
            with suppressed_instrumentation():
                self._export()
        try:
            self._exporter.shutdown()
        except Exception:
            logger.debug("the exporter of metrics cannot be shut down", exc_info=True)

    def _export(self) -> None:
        from opentelemetry.sdk.metrics.export import MetricExportResult

        from phasebus.telemetry.otel.rejections import RefusedError

        try:
            result = self._exporter.export(self._collect())
        except RefusedError as error:
            self._warn(str(error))
        except Exception as error:  # noqa: BLE001  # whatever it is, it must not reach the start-up
            self._warn(f"{type(error).__name__}: {error}")
        else:
            if result is not MetricExportResult.SUCCESS:
                self._warn("they were not accepted")

    def _warn(self, why: str) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(
                "metrics cannot be pushed to %s (%s); the start-up goes on without",
                redact(self._target),
                redact_name(why),
            )
