"""The metrics of a real start of vLLM, from its journal in `recorded`: a download, one worker, no compilation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from phasebus.bus import StepEvent, StepStarted, SubscriberStats
from phasebus.initializer.cluster.hub.state import ClusterState
from phasebus.observers import MetricsObserver
from phasebus.telemetry import Metrics
from phasebus.telemetry.journal import decode_lines
from tests.support.counting import CountingBus
from tests.support.exposition import samples, total

JOURNAL = Path(__file__).parent / "recorded" / "vllm_serve.jsonl"
OBSERVERS = ("StatusObserver", "TimelineObserver", "JournalObserver", "MetricsObserver", "SpanObserver")
MOST_BYTES = 25_000
OPEN_METRICS = "application/openmetrics-text; version=1.0.0"
SELF = "phasebus_engine_step_self_seconds_total"


def events() -> Iterator[StepEvent]:
    decoded, errors = decode_lines(JOURNAL.read_bytes())
    assert errors == []
    return (event for event in decoded if isinstance(event, StepEvent))


@pytest.fixture(scope="module")
def metrics() -> Metrics:
    metrics = Metrics("1.0.0")
    metrics.describe_target({"service.name": "phasebus", "k8s.pod.name": "llama-7d9f8b6c5-x2x4z"})
    metrics.watch_bus(
        CountingBus(*(SubscriberStats(name=name, role="observer", calls=9, errors=0, drops=0) for name in OBSERVERS))
    )
    observer = MetricsObserver(metrics, "f" * 32)
    for event in events():
        observer.observe(event)
    return metrics


@pytest.fixture(scope="module")
def text(metrics: Metrics) -> str:
    return metrics.render("text/plain")[0].decode()


@pytest.mark.parametrize("accept", ["text/plain", OPEN_METRICS])
def test_scrape_of_a_node_is_at_most_25_kilobytes(metrics: Metrics, accept: str) -> None:
    assert len(metrics.render(accept)[0]) <= MOST_BYTES


def test_exclusive_times_add_up_to_the_start_of_the_engine(text: str) -> None:
    whole = total(text, "phasebus_engine_init_duration_seconds_sum")
    assert total(text, SELF) == pytest.approx(whole, rel=0.01)
    assert total(text, "phasebus_engine_step_duration_seconds_sum") > 1.5 * whole


def test_exclusive_time_of_a_hub_is_that_of_its_node(text: str) -> None:
    hub = ClusterState()
    hub.receive("node-0", 0, JOURNAL.read_bytes())
    of_hub = hub.metrics.render("text/plain")[0].decode()
    found = {
        each.labels["step"]: each.value for each in samples(of_hub, "phasebus_cluster_engine_step_self_seconds_total")
    }
    assert found == {each.labels["step"]: each.value for each in samples(text, SELF)}


def test_most_of_the_engines_start_has_a_step(text: str) -> None:
    (unattributed,) = (each.value for each in samples(text, SELF) if each.labels["step"] == "unattributed")
    assert unattributed < 0.1 * total(text, SELF)


def test_every_counter_of_the_start_exists_at_0_before_the_engine_has_a_step() -> None:
    metrics = Metrics()
    observer = MetricsObserver(metrics)
    names = ("phasebus_node_startups_total", "phasebus_phases_total", SELF, "phasebus_download_files_total")
    before: dict[tuple[str, str], float] = {}
    for event in events():
        if not before and isinstance(event, StepStarted) and event.kind == "engine_step":
            text = metrics.render("text/plain")[0].decode()
            before = {(name, str(each.labels)): each.value for name in names for each in samples(text, name)}
        observer.observe(event)
    after = metrics.render("text/plain")[0].decode()
    assert {(name, str(each.labels)) for name in names for each in samples(after, name)} == set(before)
    assert all(value == 0 for (name, labels), value in before.items() if "pre_initialization" not in labels)
