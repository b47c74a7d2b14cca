"""The hub's /metrics against that of a node, series by series, for the same events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from phasebus.bus import CALLBACK, Bus, StepKind, StepStarted
from phasebus.initializer.cluster.hub.state import ClusterState
from phasebus.initializer.downloads.events import DOWNLOAD, FILE
from phasebus.initializer.engines.protocol import ENGINE_INIT, ENGINE_STEP
from phasebus.initializer.node.events import NODE
from phasebus.initializer.pipeline.phases import PHASE
from phasebus.observers import JournalObserver, MetricsObserver
from phasebus.telemetry import Metrics, RunIdentity, names
from phasebus.telemetry.families import cluster_name
from phasebus.telemetry.journal import JournalWriter, journal_of
from tests.support.waiting import wait_until

pytestmark = pytest.mark.anyio

_OPEN_METRICS = "application/openmetrics-text; version=1.0.0"
_OF_THE_PROCESS = (
    "phasebus_cluster_start_",
    "phasebus_cluster_ready",
    cluster_name("phasebus_build_info"),
    "process_",
    "target",
)
_OF_ONE_NODE = ("phasebus_cluster_node_startup_seconds", "phasebus_cluster_node_startup_failure_info")
_LEFT_OUT = (*_OF_THE_PROCESS, *_OF_ONE_NODE, *(family.name for family in names.OF_THE_HUB))

Series = dict[tuple[str, frozenset[tuple[str, str]]], tuple[float, Mapping[str, str] | None]]


def series_of(metrics: Metrics) -> Series:
    """Every series of steps, by the name that a hub gives it and its labels: its value and the labels of its exemplar."""
    text = metrics.render(_OPEN_METRICS)[0].decode()
    samples: Iterable[Sample] = (
        sample
        for family in text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
        for sample in family.samples
    )
    return {
        (name, frozenset(sample.labels.items())): (sample.value, sample.exemplar and sample.exemplar.labels)
        for sample in samples
        if not (name := cluster_name(sample.name) if "phasebus" in sample.name else sample.name).startswith(_LEFT_OUT)
        and not name.endswith("_age_seconds")
    }


class Node:
    """A node that observes its bus with metrics and a journal."""

    def __init__(self, name: str = "node-0") -> None:
        self.identity = RunIdentity.fresh(name, {})
        self.metrics = Metrics()
        self.journal: Path = journal_of(self.identity)
        self.bus = Bus(name)
        self.bus.observe(None, MetricsObserver(self.metrics, self.identity.trace))
        self.bus.observe(None, JournalObserver(JournalWriter(self.journal, self.identity)))

    def hub(self) -> ClusterState:
        """A hub that has received the node's journal as it is now."""
        cluster = ClusterState()
        lines = self.journal.read_bytes()
        assert cluster.receive(self.identity.node, 0, lines) == len(lines)
        return cluster


async def a_start(bus: Bus) -> None:
    """A start with every kind of step, and every way to end."""
    async with bus.step(NODE, "node-0", attributes={"model": "m", "run": "r", "phases": "download,engine_init"}):
        async with bus.step(PHASE, "download"):
            async with bus.step(CALLBACK, "mine", attributes={"phase": "pre_download"}) as callback:
                callback.attributes["changed"] = "model"
            async with bus.step(DOWNLOAD, "m", attributes={"model": "m", "source": "hf"}) as download:
                await download.progress(5, 10, "By")
                await download.progress(10, 10, "By")
                async with bus.step(FILE, "f", attributes={"model": "m", "source": "hf"}) as file:
                    await file.progress(0, 10, "By")
                    await file.progress(10, 10, "By")
                    file.attributes["outcome"] = "fetched"
                download.attributes |= {"bytes": 10, "retries": 2}
        async with bus.step(ENGINE_INIT, "vllm", attributes={"model": "m", "steps": "load,warm_up"}):
            for error in (TimeoutError, OSError, KeyboardInterrupt):
                with pytest.raises(error):
                    async with bus.step(ENGINE_STEP, "load", attributes={"kind": "gpu"}):
                        raise error
        async with bus.step(StepKind("odd"), "x\u202e\n", attributes={"kind": "mine", "text": 'a "quoted" \\ é\n'}):
            pass
        async with bus.step(StepKind("odd"), "traced", attributes={"trace_id": "1" * 32}):
            pass


async def test_the_hub_has_the_series_values_and_exemplars_of_a_nodes_metrics() -> None:
    node = Node()
    async with node.bus:
        await a_start(node.bus)
    expected = series_of(node.metrics)
    assert series_of(node.hub().metrics) == expected
    assert sum(exemplar is not None for _, exemplar in expected.values()) >= 4
    assert len(expected) > 80


class OwnStarted(StepStarted):
    """An event class that only its own program has."""


async def test_the_hub_counts_events_of_a_class_that_it_cannot_import() -> None:
    node = Node()
    async with node.bus, node.bus.step(StepKind("own", started=OwnStarted), "x"):
        pass
    counted = node.hub().metrics.registry.get_sample_value("phasebus_cluster_events_total")
    assert counted == 2


async def test_the_hub_has_the_series_of_steps_that_run() -> None:
    node = Node()
    moved = ("phasebus_cluster_progress_bytes_total", frozenset({("kind", "download")}))
    running = ("phasebus_cluster_download_in_progress", frozenset({("model", "m"), ("source", "hf")}))

    def has_moved() -> bool:
        return all(series_of(each).get(moved, (0,))[0] == 4 for each in (node.metrics, node.hub().metrics))

    async with node.bus, node.bus.step(DOWNLOAD, "m", attributes={"model": "m", "source": "hf"}) as download:
        await download.progress(0, 10, "By")
        await download.progress(4, 10, "By")
        await anyio.to_thread.run_sync(wait_until, has_moved, "both have counted the progress")
        of_node, of_hub = series_of(node.metrics), series_of(node.hub().metrics)
    assert of_hub == of_node
    assert of_hub[running][0] == 1


async def test_the_metrics_of_a_hub_are_the_sum_of_those_of_its_nodes() -> None:
    nodes = [Node("node-0"), Node("node-1")]
    cluster = ClusterState()
    for node in nodes:
        async with node.bus:
            await a_start(node.bus)
        cluster.receive(node.identity.node, 0, node.journal.read_bytes())
    one, two, both = series_of(nodes[0].metrics), series_of(nodes[1].metrics), series_of(cluster.metrics)
    assert set(both) == set(one)
    for series, (value, _) in both.items():
        assert value == pytest.approx(one[series][0] + two[series][0])
