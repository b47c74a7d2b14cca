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

from phasebus.initializer import NODE_NAME, Cluster, LLMConfig, NodeLostError, initialize_cluster
from phasebus.telemetry.journal import Run, find_journal, read_journal
from tests.support.otlp import OtlpBackend
from tests.support.programs import free_port
from tests.support.two_nodes import TwoNodes
from tests.support.waiting import wait_until

pytestmark = pytest.mark.anyio

_NOTICED_SECONDS = 60.0  # ten are promised; a shared machine gets more


class HangIn:
    """A callback that, in one phase of the node node-1, says so in a file and then waits for ever; the first time."""

    def __init__(self, phase: str, marker: Path) -> None:
        self._phase = phase
        self._marker = marker

    async def __call__(self, phase: str, config: Any, data: Any) -> None:
        if phase == self._phase and data.get(NODE_NAME) == "node-1":
            self._marker.write_text(str(os.getpid()))
            await anyio.sleep_forever()


def config(ray: TwoNodes, model: str, **fields: Any) -> LLMConfig:
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


async def start_and_break(whole: LLMConfig, marker: Path, destroy: Callable[[], None]) -> tuple[Exception, float]:
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
        await anyio.to_thread.run_sync(wait_until, marker.exists, "node-1 hangs")
        destroyed = time.monotonic()
        await anyio.to_thread.run_sync(destroy)
    return failed[0], time.monotonic() - destroyed


def lost_steps(run: Run) -> list[tuple[str, str, str | None]]:
    return [(step.kind, step.outcome, step.error) for step in run.steps if step.node == "node-1"]


def check_accounted_for(run: Run, error: Exception, phase: str, backend: OtlpBackend) -> None:
    """Every step that node-1 had begun is closed under its original id, in the journal and in the trace."""
    member = read_journal(run.path.with_suffix("") / "node-1.jsonl")
    begun = {step.id: step for step in member.steps if step.outcome in ("died", "running")}
    assert {step.kind for step in begun.values()} >= {"node", "phase", "callback"}
    closed = {step.id: step for step in run.steps}
    for step in begun.values():
        assert (closed[step.id].outcome, closed[step.id].error) == ("died", str(error))
    assert "running" not in {step.outcome for step in run.steps}
    wait_until(
        lambda: {step.id for step in run.steps} == {span.span for span in backend.spans(run.trace)}, "all spans arrived"
    )
    spans = {span.span: span for span in backend.spans(run.trace)}
    assert [span.name for span in spans.values() if span.parent and span.parent not in spans] == []
    assert [span.name for span in spans.values() if span.parent is None] == ["cluster startup"]
    assert {spans[step].error for step in begun} == {str(error)}
    assert f"phase {phase}" in {spans[step].name for step in begun}


@pytest.mark.parametrize(
    ("event", "phase"),
    [
        ("pre_initialization", "pre_initialization"),
        ("post_download", "download"),
        ("post_engine_init", "engine_init"),
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
    marker = tmp_path / "marker"
    error, seconds = await start_and_break(
        config(nodes, model, callbacks=[HangIn(event, marker)]),
        marker,
        lambda: psutil.Process(int(marker.read_text())).kill(),
    )
    assert seconds < _NOTICED_SECONDS
    assert "the node 'node-1' was lost" in str(error)
    check_accounted_for(read_journal(find_journal()), error, phase, backend)
    nodes.wait_until_free()


async def test_a_node_whose_journal_is_lost_with_it_is_closed_from_what_the_hub_has_heard(
    nodes: TwoNodes, model: str, tmp_path: Path
) -> None:
    marker, port = tmp_path / "marker", free_port()

    def destroy() -> None:
        def heard() -> bool:
            try:
                known = httpx.get(f"http://127.0.0.1:{port}/state").json()["nodes"]
            except httpx.TransportError:
                return False
            return ("node-1", "download") in {(node["name"], node["phase"]) for node in known}

        wait_until(heard, "the hub has heard of the phase")
        (journal,) = (tmp_path / "state" / "runs").glob("*/node-1.jsonl")
        journal.unlink()
        psutil.Process(int(marker.read_text())).kill()

    service = {"port": port}
    error, _ = await start_and_break(
        config(nodes, model, callbacks=[HangIn("post_download", marker)], service=service), marker, destroy
    )
    assert "the node 'node-1' was lost" in str(error)
    closed = [step for step in read_journal(find_journal()).steps if step.attributes.get("lost")]
    assert {step.kind for step in closed} == {"node", "phase", "callback"}
    assert {(step.outcome, step.error) for step in closed} == {("died", str(error))}
    nodes.wait_until_free()


async def test_a_node_that_was_lost_is_started_again_if_that_is_configured(
    nodes: TwoNodes, model: str, tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    started: list[Cluster] = []

    async def start() -> None:
        callbacks = [HangIn("post_download", marker)]
        started.append(await initialize_cluster(config(nodes, model, callbacks=callbacks, retries=1)))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(start)
        await anyio.to_thread.run_sync(wait_until, marker.exists, "node-1 hangs")
        psutil.Process(int(marker.read_text())).kill()
    async with started[0] as cluster:
        assert [node.name for node in cluster.nodes] == ["node-0", "node-1-try2"]
        run = read_journal(find_journal())
        assert {step.outcome for step in run.steps if step.node == "node-1" and step.kind == "node"} == {"died"}
        assert {step.outcome for step in run.steps if step.node == "node-1-try2"} == {"finished"}
    nodes.wait_until_free()


async def test_a_node_whose_raylet_is_killed_is_closed_in_its_name_long_before_ray_notices(
    nodes: TwoNodes, model: str, tmp_path: Path, backend: OtlpBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", backend.http)
    marker = tmp_path / "marker"

    def destroy() -> None:
        nodes.kill_raylet_of(int(marker.read_text()))

    try:
        error, seconds = await start_and_break(
            config(nodes, model, callbacks=[HangIn("post_download", marker)]), marker, destroy
        )
        assert seconds < _NOTICED_SECONDS
        check_accounted_for(read_journal(find_journal()), error, "download", backend)
        assert not psutil.pid_exists(int(marker.read_text()))
    finally:
        nodes.replace_killed()
    nodes.wait_until_free()
