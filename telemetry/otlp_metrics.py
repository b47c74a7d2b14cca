"""The metrics of a registry as OpenTelemetry's data, with the names, units and values of /metrics.

Source: OpenTelemetry specification, "Prometheus and OpenMetrics Compatibility": a counter is a monotonic sum without the suffix
`_total`, a gauge a gauge, a histogram a histogram. A summary without quantiles is a histogram with one bucket, which keeps its
count and sum. A receiver such as Prometheus' restores the names of /metrics from these names and units.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import phasebus.telemetry.otel.sdk  # noqa: F401  # isort: skip  # before anything of the SDK
from opentelemetry.sdk.metrics import export as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.samples import Sample

_UNITS: Final = {"seconds": "s", "bytes": "By", "ratio": "1"}
"""Units by the last word of a name, as in UCUM."""

_UNKNOWN: Final[Mapping[str, Any]] = {"min": None, "max": None}
"""The extremes of a histogram, which Prometheus' clients do not record. OTLP leaves them out."""


def metrics_data(registry: CollectorRegistry, resource: Resource, version: str, since_ns: int) -> sdk.MetricsData:
    """Return the current values of all metrics of `registry`.

    Args:
        registry: The registry that /metrics is rendered from.
        resource: The service, process and machine that the metrics are of.
        version: The version of phasebus.
        since_ns: The beginning of all cumulative values, in nanoseconds since the epoch.
    """
    now = time.time_ns()
    metrics = [
        sdk.Metric(_name(family), family.documentation, _unit(family.name), data)
        for family in registry.collect()
        if family.name != "target" and (data := _data(family, since_ns, now)) is not None  # the resource is target_info
    ]
    scope = sdk.ScopeMetrics(InstrumentationScope("phasebus", version), metrics, "")
    return sdk.MetricsData([sdk.ResourceMetrics(resource, [scope], "")])


def _name(family: Family) -> str:
    return f"{family.name}_info" if family.type == "info" else family.name


def _unit(name: str) -> str:
    return _UNITS.get(name.rpartition("_")[2], "")


def _data(family: Family, since: int, now: int) -> sdk.Sum | sdk.Gauge | sdk.Histogram | None:
    samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
    if not samples:
        return None
    if family.type in ("histogram", "summary"):
        points = list(_histogram_points(samples, since, now))
        return sdk.Histogram(points, sdk.AggregationTemporality.CUMULATIVE)
    numbers = [
        sdk.NumberDataPoint(dict(sample.labels), since, now, sample.value, **_exemplars(samples=[sample]))
        for sample in samples
    ]
    if family.type == "counter":
        return sdk.Sum(numbers, sdk.AggregationTemporality.CUMULATIVE, is_monotonic=True)
    return sdk.Gauge(numbers)


def _histogram_points(samples: Iterable[Sample], since: int, now: int) -> Iterator[sdk.HistogramDataPoint]:
    """Yield a point for each set of labels; the cumulative buckets of /metrics become counts of one bucket each."""
    series: dict[frozenset[tuple[str, str]], list[Sample]] = {}
    for sample in samples:
        labels = frozenset((key, value) for key, value in sample.labels.items() if key != "le")
        series.setdefault(labels, []).append(sample)
    for labels, of_one in series.items():
        buckets = [sample for sample in of_one if sample.name.endswith("_bucket")]
        cumulative = [int(sample.value) for sample in buckets]
        values = {sample.name.rpartition("_")[2]: sample.value for sample in of_one}
        count = cumulative[-1] if cumulative else int(values.get("count", 0))
        yield sdk.HistogramDataPoint(
            attributes=dict(sorted(labels)),
            start_time_unix_nano=since,
            time_unix_nano=now,
            count=count,
            sum=values.get("sum", 0.0),
            bucket_counts=[here - before for before, here in zip([0, *cumulative], cumulative, strict=False)]
            or [count],
            explicit_bounds=[float(sample.labels["le"]) for sample in buckets[:-1]],
            **_UNKNOWN,
            **_exemplars(buckets),
        )


def _exemplars(samples: Iterable[Sample]) -> Mapping[str, Any]:
    """Return the exemplars of `samples` as an argument of a point; nothing for SDKs before 1.28, which have none."""
    try:
        from opentelemetry.sdk.metrics import Exemplar
    except ImportError:
        return {}
    found = []
    for exemplar in (sample.exemplar for sample in samples if sample.exemplar is not None):
        ids = exemplar.labels
        found.append(
            Exemplar(
                {},
                exemplar.value,
                int(float(exemplar.timestamp or time.time()) * 1e9),
                _number(ids.get("span_id", "")),
                _number(ids.get("trace_id", "")),
            )
        )
    return {"exemplars": found}


def _number(id_: str) -> int | None:
    """Return the number that a hexadecimal id is; None for anything else."""
    try:
        return int(id_, 16)
    except ValueError:
        return None
