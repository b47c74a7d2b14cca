"""Counters, gauges and histograms whose values stay in this process, whatever PROMETHEUS_MULTIPROC_DIR says.

prometheus_client decides at its import, for the whole process, whether values live in memory or in files of that folder.
The folder belongs to the application (vLLM's API servers use one): our series would be served as part of its metrics, and
a folder that does not exist yet would fail the start. This is the one file that depends on how prometheus_client creates
values (0.18 to 0.26): each metric class does so in `_metric_init`, through the module `values`.
"""

from __future__ import annotations

from types import FunctionType, SimpleNamespace
from typing import Any

import prometheus_client
from prometheus_client import metrics
from prometheus_client.values import MutexValue


def _with_values_in_memory(metric: type[metrics.MetricWrapperBase]) -> Any:
    """Return the `_metric_init` of `metric`, the same code with another class of values."""
    original: Any = metric._metric_init  # noqa: SLF001
    in_memory = {**original.__globals__, "values": SimpleNamespace(ValueClass=MutexValue)}
    return FunctionType(original.__code__, in_memory, original.__name__)


class Counter(prometheus_client.Counter):
    """A counter whose value stays in this process."""

    _metric_init = _with_values_in_memory(prometheus_client.Counter)


class Gauge(prometheus_client.Gauge):
    """A gauge whose value stays in this process."""

    _metric_init = _with_values_in_memory(prometheus_client.Gauge)


class Histogram(prometheus_client.Histogram):
    """A histogram whose values stay in this process."""

    _metric_init = _with_values_in_memory(prometheus_client.Histogram)
