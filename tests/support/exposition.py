"""Reading what /metrics answers."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


def samples(text: str, name: str) -> Iterator[Sample]:
    """Yield the samples called `name` of an answer in Prometheus' text format."""
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name:
                yield sample


def total(text: str, name: str) -> float:
    """Return the sum of the samples called `name`; 0 without one."""
    return sum(sample.value for sample in samples(text, name))
