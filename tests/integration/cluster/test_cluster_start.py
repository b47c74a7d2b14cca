"""A cluster's start on two real raylets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import anyio
import pytest

from phasebus.bus import Context, Key
from phasebus.initializer import (
    MODEL,
    NODE_NAME,
    PLACEMENT_BUNDLES,
    ClusterConfig,
    DownloadError,
    LLMConfig,
    NodeConflictError,
    PlacementError,
    PostCluster,
    PreCluster,
    PreDownload,
    PrePlacementGroup,
    initialize_cluster,
)
from phasebus.telemetry.journal import find_journal, read_journal
from tests.support.command import Command
from tests.support.otlp import OtlpBackend
from tests.support.two_nodes import TwoNodes, in_no_hurry

pytestmark = pytest.mark.anyio


def config(ray: TwoNodes, model: str, **fields: Any) -> ClusterConfig:
    return in_no_hurry(one_model(ray, model, **fields))


def one_model(ray: TwoNodes, model: str, **fields: Any) -> LLMConfig:
    return LLMConfig(
        **{
            "model": model,
            "engine": "none",
            "nodes": 2,
            "ray": {"address": ray.address},
            "service": {"port": None},
            **fields,
        },
    )


def write_pid(phase: str, config: Any, data: Any) -> dict[str, Any] | None:
    return {f"pid of {data[NODE_NAME]}": os.getpid()} if phase == "pre_download" else None


async def test_every_node_has_an_actor_on_its_own_node_of_ray(nodes: TwoNodes, model: str) -> None:
    async with await initialize_cluster(config(nodes, model, callbacks=[write_pid])) as cluster:
        import ray

        assert [node.name for node in cluster.nodes] == ["node-0", "node-1"]
        assert len(set(bundles(ray).values())) == 2
        for node in cluster.nodes:
            assert cluster.context[f"pid of {node.name}"] == node.pid
            assert node.context["download_result"].path.name == model.rpartition("/")[2]
    nodes.wait_until_free()


async def test_more_replicas_than_nodes_share_the_nodes(nodes: TwoNodes, model: str) -> None:
    async with await initialize_cluster(config(nodes, model, replicas=4)) as cluster:
        import ray

        assert [node.name for node in cluster.nodes] == ["node-0", "node-1", "node-2", "node-3"]
        assert len({node.pid for node in cluster.nodes}) == 4
        placed = list(bundles(ray).values())
        assert sorted(placed.count(node) for node in set(placed)) == [2, 2]
    nodes.wait_until_free()


def test_without_an_address_a_local_ray_is_started_and_ended(model: str, tmp_path: Path) -> None:
    """In a process of its own: Ray asks for a token in this one from then on, and the cluster of the other tests for none."""
    config = tmp_path / "cluster.yaml"
    config.write_text(f"{{model: {model}, engine: none, nodes: 2, ray: {{num_cpus: 2}}, service: {{port: 0}}}}")
    command = Command("up", str(config), "--once", state=tmp_path)
    try:
        assert command.wait() == 0, command.stderr
        assert command.left_behind() == []
        nodes = {step.name: step.outcome for step in command.journal().steps if step.kind == "node"}
        assert nodes == {"node-0": "finished", "node-1": "finished"}
    finally:
        command.close()


def bundles(ray: Any) -> dict[int, str]:
    (group,) = (each for each in ray.util.placement_group_table().values() if each["state"] == "CREATED")
    placed: dict[int, str] = group["bundles_to_node_id"]
    return placed


async def test_the_trace_has_one_root_and_contains_every_node(
    nodes: TwoNodes, model: str, backend: OtlpBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", backend.http)
    async with await initialize_cluster(config(nodes, model)):
        pass
    run = read_journal(find_journal())
    spans = {span.span: span for span in backend.spans_of(run)}
    (root,) = (span for span in spans.values() if span.parent is None)
    assert root.name == "cluster startup"
    assert [span.name for span in spans.values() if span.parent and span.parent not in spans] == []
    inits = [span for span in spans.values() if span.name == "node init"]
    assert [span.parent for span in inits] == [root.span, root.span]
    assert {span.resource["phasebus.node"] for span in inits} == {"node-0", "node-1"}
    for name in ("ray start node actor", "phase download", "download model", "phase post_initialization"):
        assert sum(span.name == name for span in spans.values()) == 2
    assert set(spans) == {step.id for step in run.steps}
    assert {step.outcome for step in run.steps} == {"finished"}


async def test_callbacks_run_where_they_are_declared_and_on_the_driver_for_placement(
    nodes: TwoNodes, model: str
) -> None:
    driver: list[tuple[str, int]] = []

    def on_driver(phase: str, config: Any, data: Any) -> None:
        driver.append((phase, os.getpid()))

    async with await initialize_cluster(
        config(nodes, model, callbacks=[write_phases], driver_callbacks=[on_driver])
    ) as cluster:
        first, second = (node.context["phases"] for node in cluster.nodes)
    assert [phase for phase, _ in driver] == [
        "pre_cluster",
        "pre_placement_group",
        "post_placement_group",
        "post_cluster",
    ]
    assert {pid for _, pid in driver} == {os.getpid()}
    assert first == second == ["pre_initialization", "pre_download", "post_download", "pre_engine_init",
                               "post_engine_init", "post_initialization"]  # fmt: skip


def write_phases(phase: str, config: Any, data: Any) -> dict[str, Any] | None:
    if "placement" in phase:
        return None
    return {"phases": [*data.get("phases", []), phase]}


async def test_ray_reserves_the_bundles_that_a_callback_wrote_before_the_placement(nodes: TwoNodes, model: str) -> None:
    async with await initialize_cluster(config(nodes, model, callbacks=[ask_for_a_cpu])) as cluster:
        group = cluster.context["placement_group"]
        assert group.bundle_specs == [{"CPU": 1.0}, {"CPU": 1.0}]


async def ask_for_a_cpu(event: PrePlacementGroup, context: Context) -> None:
    context[PLACEMENT_BUNDLES] = [{"CPU": 1}, {"CPU": 1}]


async def test_nodes_see_the_drivers_values_and_the_driver_those_of_the_nodes(nodes: TwoNodes, model: str) -> None:
    async def set_model(event: PreCluster, context: Context) -> None:
        context[MODEL] = model

    seen: dict[str, Any] = {}

    async def look(event: PostCluster, context: Context) -> None:
        seen.update(context)

    names = Key[list[str]]("names", on_conflict=lambda current, new: [*current, *new])
    whole = ClusterConfig(
        models=[one_model(nodes, "/not/there", callbacks=[write_name])],
        callbacks=[set_model, look],
        keys=[names],
        silence_seconds=60,
        ray={"address": nodes.address},  # type: ignore[arg-type]
    )
    async with await initialize_cluster(whole) as cluster:
        assert seen["names"] == cluster.context[names] == ["node-0", "node-1"]
        assert [change.by for change in cluster.context.history("names")] == [
            "write_name on node-0",
            "write_name on node-1",
        ]


async def write_name(event: PreDownload, context: Context) -> None:
    context["names"] = [context[NODE_NAME]]


async def test_a_conflict_names_both_nodes_and_both_callbacks(nodes: TwoNodes, model: str) -> None:
    with pytest.raises(NodeConflictError) as caught:
        await initialize_cluster(config(nodes, model, callbacks=[write_name]))
    assert "'write_name' on node-0 and 'write_name' on node-1 wrote different values to 'names'" in str(caught.value)
    nodes.wait_until_free()


async def test_a_failed_node_fails_the_cluster_by_name_and_releases_everything(nodes: TwoNodes, model: str) -> None:
    with pytest.raises(DownloadError, match="/not/there") as caught:
        await initialize_cluster(config(nodes, model, callbacks=[break_second]))
    assert any(note.startswith("on the node 'node-1'") for note in caught.value.__notes__)
    assert "in the phase 'download'" in caught.value.__notes__
    run = read_journal(find_journal())
    assert {(step.node, step.outcome) for step in run.steps if step.kind == "node"} >= {("node-1", "failed")}
    assert "running" not in {step.outcome for step in run.steps}
    nodes.wait_until_free()


async def test_a_node_whose_callback_hangs_is_not_lost_and_is_cancelled_in_order(nodes: TwoNodes, model: str) -> None:
    slow = ClusterConfig(
        models=[one_model(nodes, model, callbacks=[hang_on_first_and_break_second_late])],
        silence_seconds=15,
        ray={"address": nodes.address},  # type: ignore[arg-type]
        service={"port": None},  # type: ignore[arg-type]
    )
    with pytest.raises(DownloadError):
        await initialize_cluster(slow)
    first = {step.name: step.outcome for step in read_journal(find_journal()).steps if step.node == "node-0"}
    assert (first["node-0"], first["download"]) == ("cancelled", "cancelled")
    nodes.wait_until_free()


async def hang_on_first_and_break_second_late(event: PreDownload, context: Context) -> None:
    if context[NODE_NAME] == "node-0":
        await anyio.sleep_forever()
    await anyio.sleep(20)
    context[MODEL] = "/not/there"


async def break_second(event: PreDownload, context: Context) -> None:
    if context[NODE_NAME] == "node-1":
        context[MODEL] = "/not/there"


async def test_more_nodes_than_ray_has_are_reported_as_infeasible(nodes: TwoNodes, model: str) -> None:
    with pytest.raises(PlacementError) as caught:
        await initialize_cluster(config(nodes, model, nodes=3, placement={"timeout_seconds": 2}))
    assert "infeasible: STRICT_SPREAD puts 3 bundles on as many nodes, and there are 2" in str(caught.value)
    nodes.wait_until_free()


async def test_resources_in_use_are_reported_as_pending(nodes: TwoNodes, model: str) -> None:
    whole_nodes = {"bundles": [{"CPU": 2}]}
    async with await initialize_cluster(config(nodes, model, placement=whole_nodes)):
        with pytest.raises(
            PlacementError, match="pending: the nodes are large enough, so the missing resources are in use"
        ):
            await initialize_cluster(config(nodes, model, placement={**whole_nodes, "timeout_seconds": 2}))
