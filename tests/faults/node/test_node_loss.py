"""A node of a cluster that goes away in the middle of its start."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import psutil
import pytest

from phasebus.bus import Context
from phasebus.initializer import (
    NODE_NAME,
    PLACEMENT_BUNDLES,
    Cluster,
    ClusterConfig,
    LLMConfig,
    NodeLostError,
    PrePlacementGroup,
    initialize_cluster,
)
from phasebus.telemetry.journal import JournalError, Run, find_journal, read_journal
from tests.support.cluster_hub import Hub
from tests.support.otlp import OtlpBackend
from tests.support.programs import free_port
from tests.support.two_nodes import TwoNodes, in_no_hurry
from tests.support.waiting import wait_until

pytestmark = pytest.mark.anyio

_NOTICED_SECONDS = 60.0  # ten are promised; a shared machine gets more


_HANGING = ("callback", "running")
"""The kind, and where it stands, of the step that the hanging callback is."""


class HangIn:
    """A callback that, in one phase of node-1, creates a file and then blocks for ever; the first time."""

    def __init__(self, phase: str, folder: Path) -> None:
        self.phase = phase
        self.marker = folder / "marker"

    async def __call__(self, phase: str, config: Any, data: Any) -> None:
        if phase == self.phase and data.get(NODE_NAME) == "node-1":
            written = self.marker.with_suffix(".new")
            written.write_text(str(os.getpid()))
            written.rename(self.marker)
            await anyio.sleep_forever()

    @property
    def pid(self) -> int:
        """The process of the node that hangs."""
        return int(self.marker.read_text())


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
        }
    )


def hangs(hang: HangIn) -> bool:
    """Whether node-1 hangs, and its journal, which a thread of its own writes, has come as far."""
    if not hang.marker.exists():
        return False
    try:
        steps = read_journal(find_journal().with_suffix("") / "node-1.jsonl").steps
    except JournalError:
        return False
    return hang.phase in {step.attributes["phase"] for step in steps if (step.kind, step.outcome) == _HANGING}


async def start_and_break(
    whole: LLMConfig | ClusterConfig, hang: HangIn, destroy: Callable[[], None]
) -> tuple[Exception, float]:
    """Start a cluster; destroy something once node-1 hangs. Return the start's error and the seconds it took to come."""
    failed: list[Exception] = []
    destroyed = 0.0

    async def start() -> None:
        try:
            await initialize_cluster(whole)
        except NodeLostError as error:
            failed.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(start)
        await anyio.to_thread.run_sync(wait_until, lambda: hangs(hang), "node-1 hangs")
        destroyed = time.monotonic()
        await anyio.to_thread.run_sync(destroy)
    return failed[0], time.monotonic() - destroyed


def check_accounted_for(run: Run, error: Exception, phase: str, backend: OtlpBackend) -> None:
    """Every step that node-1 had begun is closed under its original id, in the journal and in the trace."""
    member = read_journal(run.path.with_suffix("") / "node-1.jsonl")
    begun = {step.id: step for step in member.steps if step.outcome in ("died", "running")}
    assert {step.kind for step in begun.values()} >= {"node", "phase", "callback"}
    closed = {step.id: step for step in run.steps}
    for step in begun.values():
        assert (closed[step.id].outcome, closed[step.id].error) == ("died", str(error))
    assert "running" not in {step.outcome for step in run.steps}
    spans = {span.span: span for span in backend.spans_of(run)}
    assert set(spans) == {step.id for step in run.steps}
    assert [span.name for span in spans.values() if span.parent and span.parent not in spans] == []
    assert [span.name for span in spans.values() if span.parent is None] == ["cluster startup"]
    assert {spans[step].error for step in begun} == {str(error)}
    assert f"phase {phase}" in {spans[step].name for step in begun}


@pytest.mark.parametrize(
    ("event", "phase"),
    [
        ("pre_initialization", "pre_initialization"),  # "download": see the raylet that is killed
        ("post_initialization", "post_initialization"),
    ],
)
async def test_a_node_whose_actor_is_killed_is_closed_in_its_name(
    event: str,
    phase: str,
    nodes: TwoNodes,
    model: str,
    tmp_path: Path,
    backend: OtlpBackend,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", backend.http)
    hang = HangIn(event, tmp_path)
    error, seconds = await start_and_break(
        config(nodes, model, callbacks=[hang]), hang, lambda: psutil.Process(hang.pid).kill()
    )
    assert seconds < _NOTICED_SECONDS
    assert "the node 'node-1' was lost" in str(error)
    check_accounted_for(read_journal(find_journal()), error, phase, backend)
    nodes.wait_until_free()


async def test_a_node_lost_with_its_journal_is_closed_from_the_events_of_the_hub(
    nodes: TwoNodes, model: str, tmp_path: Path
) -> None:
    hang, port = HangIn("post_download", tmp_path), free_port()

    def destroy() -> None:
        def reported() -> bool:
            try:
                steps = httpx.get(f"http://127.0.0.1:{port}/timeline").json()["steps"]
            except httpx.TransportError:
                return False
            hanging = [each for each in steps if (each["kind"], each["outcome"]) == _HANGING]
            return ("node-1", hang.phase) in {(each["node"], each["attributes"]["phase"]) for each in hanging}

        wait_until(reported, "the hub shows the callback that hangs")
        (journal,) = (tmp_path / "state" / "runs").glob("*/node-1.jsonl")
        journal.unlink()
        psutil.Process(hang.pid).kill()

    service = {"port": port}
    error, _ = await start_and_break(config(nodes, model, callbacks=[hang], service=service), hang, destroy)
    assert "the node 'node-1' was lost" in str(error)
    closed = [step for step in read_journal(find_journal()).steps if step.attributes.get("lost")]
    assert {step.kind for step in closed} == {"node", "phase", "callback"}
    assert {(step.outcome, step.error) for step in closed} == {("died", str(error))}
    nodes.wait_until_free()


async def test_a_node_that_was_lost_is_started_again_if_that_is_configured(
    nodes: TwoNodes, model: str, tmp_path: Path
) -> None:
    hang = HangIn("post_download", tmp_path)
    started: list[Cluster] = []

    async def start() -> None:
        started.append(await initialize_cluster(config(nodes, model, callbacks=[hang], retries=1)))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(start)
        await anyio.to_thread.run_sync(wait_until, lambda: hangs(hang), "node-1 hangs")
        psutil.Process(hang.pid).kill()
    async with started[0] as cluster:
        assert [node.name for node in cluster.nodes] == ["node-0", "node-1-try2"]

        def outcomes(node: str) -> set[str]:
            return {step.outcome for step in read_journal(find_journal()).steps if step.node == node}

        assert "running" not in outcomes("node-1")
        assert "died" in outcomes("node-1")
        await anyio.to_thread.run_sync(wait_until, lambda: outcomes("node-1-try2") == {"finished"}, "all is written")
    nodes.wait_until_free()


async def part(event: PrePlacementGroup, context: Context) -> None:
    """Put node-1 on the raylet that can be replaced."""
    context[PLACEMENT_BUNDLES] = [{"CPU": 0.01, "first": 0.01}, {"CPU": 0.01, "second": 0.01}]


async def test_a_node_whose_raylet_is_killed_is_closed_in_its_name_long_before_ray_notices(
    nodes: TwoNodes, model: str, tmp_path: Path, backend: OtlpBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", backend.http)
    hang = HangIn("post_download", tmp_path)

    def destroy() -> None:
        nodes.kill_raylet_of(hang.pid)

    try:  # found by its silence, so that this is as short as by default
        error, seconds = await start_and_break(one_model(nodes, model, callbacks=[hang, part]), hang, destroy)
        assert seconds < _NOTICED_SECONDS
        check_accounted_for(read_journal(find_journal()), error, "download", backend)
        wait_until(lambda: not psutil.pid_exists(hang.pid), "its process has gone as well")
    finally:
        nodes.replace_killed()
    nodes.wait_until_free()


async def test_a_node_lost_from_a_ready_cluster_is_reported_by_the_hub(nodes: TwoNodes, model: str) -> None:
    hub = Hub(free_port())
    async with await initialize_cluster(config(nodes, model, service={"port": hub.port})) as cluster:
        ready = {"node_0": "ready", "node_1": "ready"}
        await anyio.to_thread.run_sync(wait_until, lambda: hub.says(200, **ready), "the hub calls both ready")
        psutil.Process(cluster.nodes[1].pid).kill()
        lost = {"node_0": "ready", "node_1": "lost"}
        await anyio.to_thread.run_sync(wait_until, lambda: hub.says(503, **lost), "the hub misses one")
        state = hub.state()
        assert state["status"] == "degraded"
        assert state["nodes"][1]["error"] == "no message for 10 s"
        metrics = hub.get("/metrics").text
        for line in ('phasebus_cluster_node_ready{node="node-1"} 0.0', "phasebus_cluster_ready 0.0"):
            assert line in metrics
    nodes.wait_until_free()
