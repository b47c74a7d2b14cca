"""What was lost on its way into a trace, as metrics that are read at every scrape."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from phasebus.telemetry import names
from phasebus.telemetry.relay import Relay
from phasebus.telemetry.tracing import Tracing


class TraceLosses(Collector):
    """Counts spans that were not exported, and what the relay rejected.

    Args:
        tracing: What exports spans.
        relay: What receives those of the engine.
    """

    def __init__(self, tracing: Tracing, relay: Relay) -> None:
        self._tracing = tracing
        self._relay = relay

    def collect(self) -> Iterable[Metric]:
        """Return the counts."""
        yield CounterMetricFamily(*names.SPANS_DROPPED.header, value=self._tracing.dropped)
        yield CounterMetricFamily(*names.RELAY_REJECTED.header, value=self._relay.rejected)
