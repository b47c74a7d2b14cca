"""Counters, gauges, histograms and summaries with values in this process only, and without series for their creation.

prometheus_client decides at its import, for the whole process, whether values live in memory or in files of
PROMETHEUS_MULTIPROC_DIR. That folder belongs to the application (vLLM's API servers use one): our series would be served
as part of its metrics, and a folder that does not exist yet would fail the start. Whether there are `_created` series,
which double the number of series, is a setting of the whole process as well.

This is the one file that depends on how prometheus_client does both (0.18 to 0.26): each metric class creates its values
in `_metric_init`, through the module `values`, and its samples in `_child_samples`, which reads `_use_created`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import FunctionType, SimpleNamespace
from typing import Any, Final

import prometheus_client
from prometheus_client import metrics
from prometheus_client.values import MutexValue

_GLOBALS: Final = {"values": SimpleNamespace(ValueClass=MutexValue), "_use_created": False}


def _with_own_globals(method: Any) -> Any:
    """Return the same code as `method`, with other values of two global variables."""
    return FunctionType(method.__code__, {**method.__globals__, **_GLOBALS}, method.__name__)


def _methods(metric: type[metrics.MetricWrapperBase]) -> tuple[Any, Any]:
    return _with_own_globals(metric._metric_init), _with_own_globals(metric._child_samples)  # noqa: SLF001


class Counter(prometheus_client.Counter):
    """A counter with its value in this process."""

    _metric_init, _child_samples = _methods(prometheus_client.Counter)


class Gauge(prometheus_client.Gauge):
    """A gauge with its value in this process."""

    _metric_init, _child_samples = _methods(prometheus_client.Gauge)


class Histogram(prometheus_client.Histogram):
    """A histogram with its values in this process."""

    _metric_init, _child_samples = _methods(prometheus_client.Histogram)


class Summary(prometheus_client.Summary):
    """A summary, which is a sum and a count, with its values in this process."""

    _metric_init, _child_samples = _methods(prometheus_client.Summary)


METRIC_TYPES: Final[Mapping[str, Any]] = {
    "counter": Counter,
    "gauge": Gauge,
    "histogram": Histogram,
    "summary": Summary,
}
"""The classes, by the type of a family."""
