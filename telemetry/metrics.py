"""The metric registry: our own, never prometheus_client's default one, with the names of `phasebus.telemetry.names`."""

from __future__ import annotations

import platform
import re
import threading
import time
from bisect import bisect_left
from collections import Counter as Multiset
from collections.abc import Mapping, Sequence
from functools import cache, partial
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from itertools import filterfalse
from typing import Any, Final

import prometheus_client
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder

from phasebus.printable import printable_value
from phasebus.telemetry import names
from phasebus.telemetry.bus_counts import BusCounts, CountingBus
from phasebus.telemetry.families import FILE_OUTCOMES, Family
from phasebus.telemetry.in_memory import METRIC_TYPES, Counter, Gauge
from phasebus.telemetry.redaction import redact_name, redact_value
from phasebus.telemetry.step_series import RunningSteps, StepSeries

UNKNOWN: Final = "unknown"
"""The value of a label for which a step has no attribute."""

OVERFLOW: Final = "other"
"""The value of every label of the steps that would exceed `MAX_SERIES`."""

MAX_SERIES: Final = 2_000
"""How many different sets of label values a metric may have."""

MAX_ANNOUNCED: Final = 100
"""How many names of steps an attribute may announce; an engine has about forty."""

_OF_ONE_PROCESS: Final = frozenset({"service.instance.id", "process.pid", "phasebus.run", "k8s.pod.uid"})
_NOT_IN_LABELS: Final = re.compile(r"[^a-zA-Z0-9_]|^(?=\d)")
_EXCLUDED: Final = re.compile(r";\s*q\s*=\s*0(\.0*)?\s*(;|$)", re.IGNORECASE)
"""A format in an Accept header that is not accepted, which prometheus_client would choose."""

_REPEATED: Final = re.compile("__+")


class Metrics:
    """The metrics of one process. Its methods may be called from any thread.

    Args:
        version: The version of phasebus, for `phasebus_build_info`.
        of_cluster: Whether they are sums over the nodes of a cluster; their names then begin with `phasebus_cluster_`.
        distributions: The labels of `phasebus_build_info` that are versions of other software, each with the names under
            which that may be installed.
    """

    def __init__(
        self,
        version: str = "",
        *,
        of_cluster: bool = False,
        distributions: Mapping[str, tuple[str, ...]] = names.DISTRIBUTIONS,
    ) -> None:
        self.registry = CollectorRegistry()
        self._of_cluster = of_cluster
        self._lock = threading.RLock()
        self._families: dict[str, Any] = {}
        self._children: dict[tuple[str, ...], Any] = {}
        self._sizes: Multiset[str] = Multiset()
        self._label_sets: Multiset[str] = Multiset()
        self._steps: dict[tuple[str, ...], StepSeries] = {}
        self._buses = BusCounts()
        self.ready: Gauge = self.family(names.READY)
        self.start_time: Gauge = self.family(names.START_TIME)
        self.start_time.set(time.time())
        self.events: Counter = self.family(names.EVENTS)
        self.registry.register(RunningSteps(lambda: tuple(self._steps.values()), self._named))
        self.registry.register(self._buses)
        ProcessCollector(registry=self.registry)
        build = METRIC_TYPES["gauge"](*names.BUILD_INFO.header, names.BUILD_INFO.labels, registry=self.registry)
        installed = {label: _version(each) for label, each in distributions.items()}
        build.labels(version=version, python=platform.python_version(), **installed).set(1)

    def family(self, family: Family) -> Any:
        """Return the metric of `family`, created on first use; a hub's has its name for the cluster."""
        with self._lock:
            found = self._families.get(family.name)
            if found is None:
                named = self._named(family)
                buckets = {"buckets": named.buckets} if named.buckets else {}
                found = self._families[family.name] = METRIC_TYPES[named.type](
                    *named.header, named.labels, registry=self.registry, **buckets
                )
            return found

    def steps(self, kind: str, name: str, attributes: Mapping[str, object]) -> StepSeries:
        """Return the series of the steps of `kind` like the one called `name`; all of them exist from now on."""
        row = names.kind_names(kind)
        known = {**attributes, "kind": kind}
        if row.name_label is not None:
            known[row.name_label] = name
        key = (row.duration.name, *(_text(known.get(label, UNKNOWN)) for label in row.duration.labels))
        found = self._steps.get(key)
        if found is None:
            with self._lock:
                if (found := self._steps.get(key)) is None:
                    if self._label_sets[key[0]] >= MAX_SERIES:
                        key = (key[0], *(OVERFLOW for _ in key[1:]))
                    self._label_sets[key[0]] += 1
                    labels = dict(zip(row.duration.labels, map(redact_name, key[1:]), strict=True))
                    found = self._steps.setdefault(key, StepSeries(redact_name(kind), row, labels, self.series))
        return found

    def announce(self, kind: str, attributes: Mapping[str, object]) -> None:
        """Create the series of the steps that a step of `kind` with these attributes will contain, as far as it lists them.

        A counter that begins at its first increment does not increase: Prometheus has seen no lower value.
        """
        row = names.kind_names(kind)
        for attribute, inner in row.announces.items():
            names_of_steps = str(attributes.get(attribute, "")).split(",", MAX_ANNOUNCED)[:MAX_ANNOUNCED]
            for name in filter(None, names_of_steps):
                if row.divides is not None:
                    self.share(kind, name)  # the only one that is fed by steps of any duration at the end of the whole
                else:
                    self.steps(inner, name, {})
        for inner in row.contains:
            self.steps(inner, "", attributes)

    def share(self, kind: str, name: str) -> Counter:
        """Return the counter of the exclusive time of the steps called `name` inside steps of `kind`."""
        divides = names.kind_names(kind).divides
        assert divides is not None  # noqa: S101  # only asked for rows that divide their duration
        family, inner = divides
        counter: Counter = self.series(family, {str(names.kind_names(inner).name_label): name})
        return counter

    def latest(self, family: Family, labels: Mapping[str, object]) -> Gauge | None:
        """Return the gauge of what the process does once; None for a cluster, because each of its nodes does it."""
        return None if self._of_cluster else self.series(family, labels)

    def series(self, family: Family, labels: Mapping[str, object]) -> Any:
        """Return the series of `family` with these label values, printable and free of secrets.

        Series are kept by their raw values, because redacting is slower than counting.

        Args:
            family: A row of `names`.
            labels: The values of its labels, and possibly of others.
        """
        metric = self._families.get(family.name) or self.family(family)
        if not family.labels:
            return metric
        key = (family.name, *(_text(labels.get(label, UNKNOWN)) for label in family.labels))
        found = self._children.get(key)
        if found is None:
            with self._lock:
                if self._sizes[family.name] >= _most_series(family):
                    return metric.labels(*(OVERFLOW for _ in family.labels))
                self._sizes[family.name] += 1
                found = self._children[key] = metric.labels(*map(redact_name, key[1:]))
        return found

    def describe_target(self, attributes: Mapping[str, object]) -> None:
        """Export the resource of the process as the labels of `target_info`. May be called once.

        Ids that differ for every process are left out: each would be a new series. The values of keys that become the same
        label are joined, and a label begins with at most one underscore, as Prometheus reserves two. Source: OpenTelemetry specification,
        "Prometheus and OpenMetrics Compatibility".

        Args:
            attributes: The attributes of the resource, as on its spans.
        """
        labels: dict[str, list[str]] = {}
        for key, value in sorted(attributes.items()):
            if key and key not in _OF_ONE_PROCESS and not key.startswith("telemetry."):
                label = _REPEATED.sub("_", _NOT_IN_LABELS.sub("_", key))
                labels.setdefault(label, []).append(redact_name(_text(redact_value(key, value))))
        self.registry.set_target_info({label: ";".join(values) for label, values in labels.items()})

    def watch_bus(self, bus: CountingBus) -> None:
        """Export what `bus` counts of its subscribers and observers; it is read at every scrape.

        The counts of subscribers of the same name on several buses are added up.
        """
        self._buses.watch(bus)

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics, and their content type, in the format an Accept header asks for."""
        try:
            encode, content_type = choose_encoder(",".join(filterfalse(_EXCLUDED.search, accept.split(","))))
        except Exception:  # noqa: BLE001  # prometheus_client raises for a version that is no number
            encode, content_type = choose_encoder("")
        return encode(self.registry), content_type

    def _named(self, family: Family) -> Family:
        return family.of_cluster() if self._of_cluster else family


def _most_series(family: Family) -> int:
    return (MAX_SERIES + 1) * (len(FILE_OUTCOMES) if "outcome" in family.labels else 1)


@cache
def _version(distributions: Sequence[str]) -> str:
    """Return the version of the first of `distributions` that is installed; "" for none."""
    for name in distributions:
        try:
            return version_of(name) or ""
        except PackageNotFoundError:
            continue
    return ""


def _text(value: object) -> str:
    return value if type(value) is str else str(printable_value(value))


def observe_many(histogram: prometheus_client.Histogram, amounts: Sequence[float]) -> None:
    """Observe all of `amounts` at once, in a fifth of the time of one after the other.

    prometheus_client has no such method; this does what its `Histogram.observe` does (0.18 to 0.26).

    Args:
        histogram: A histogram, or one of its children.
        amounts: What is observed, in the histogram's unit.
    """
    histogram._sum.inc(sum(amounts))  # noqa: SLF001
    for bucket, count in Multiset(map(partial(bisect_left, histogram._upper_bounds), amounts)).items():  # noqa: SLF001
        histogram._buckets[bucket].inc(count)  # noqa: SLF001
