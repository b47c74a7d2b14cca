"""The rules that every metric family follows. Source: Prometheus' guide on naming, and OpenMetrics."""

from __future__ import annotations

import re

import pytest

from phasebus.initializer.cluster.hub.state import ClusterState
from phasebus.telemetry import Metrics, names
from phasebus.telemetry.families import Family
from tests.support.metrics_page import MARK, PAGE, sections, tables

FAMILIES = names.all_families()
OF_A_PROCESS = ("process_", "phasebus_build_info", "python_")


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_name_of_a_family_says_its_type_and_unit(family: Family) -> None:
    assert re.fullmatch(r"phasebus_[a-z0-9_]+", family.name)
    assert family.name.endswith("_total") == (family.type == "counter")
    assert not re.search(r"_(count|sum|bucket|created|milliseconds|ms|kb|mb)(_|$)", family.name)
    if "since the epoch" in family.help:
        assert family.name.endswith("_timestamp_seconds")
    assert bool(family.buckets) == (family.type == "histogram")
    assert not family.name.endswith("_info") or family.help.startswith("1, with")


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_help_of_a_family_is_plain_sentences(family: Family) -> None:
    assert re.fullmatch(r"[A-Z10].*\.", family.help)
    assert "\n" not in family.help
    assert not {"run", "trace", "trace_id", "file", "le", "quantile"} & set(family.labels)


def test_names_of_families_are_unique() -> None:
    found = [family.name for family in FAMILIES]
    assert len(found) == len(set(found))
    of_hubs = [family.of_cluster().name for family in FAMILIES if family is not names.KINDS["node"].latest]
    assert len(of_hubs) == len(set(of_hubs))


def test_page_of_metrics_is_the_one_generated_from_the_names() -> None:
    written = PAGE.read_text().partition(MARK)[2]
    assert written == "\n" + tables(), "run: python -m tests.support.metrics_page"


def test_page_of_metrics_lists_every_family_once() -> None:
    listed = [family.name for families in sections().values() for family in families]
    assert sorted(listed) == sorted(family.name for family in FAMILIES)


def with_every_kind(metrics: Metrics) -> set[str]:
    """The names of the families of `metrics` after a step of every kind."""
    for kind in (*names.KINDS, "odd"):
        metrics.steps(kind, "x", {"model": "m"}).start("a" * 16, 1)
    return {family.name for family in metrics.registry.collect() if not family.name.startswith(OF_A_PROCESS)}


def test_no_family_is_exported_by_a_node_and_by_a_hub() -> None:
    node, hub = with_every_kind(Metrics()), with_every_kind(ClusterState().metrics)
    of_the_driver = {family.name.removesuffix("_total") for family in names.KINDS["cluster"].families}
    assert node & hub <= of_the_driver
    assert {name for name in hub if not name.startswith("phasebus_cluster_")} == set()
    assert {name for name in node if name.startswith("phasebus_cluster_")} <= of_the_driver
