"""The hub of a cluster: what it serves, and that no start depends on it."""

from __future__ import annotations

import subprocess
from typing import Any

import anyio
import anyio.to_thread
import httpx
import psutil
import pytest
import ray

from phasebus.bus import current_step
from phasebus.initializer import NODE_NAME, Cluster, ClusterConfig, LLMConfig, initialize_cluster
from phasebus.initializer.cluster.hub.start import HubConnection
from phasebus.initializer.cluster.hub.wire import Address, Parcel, Wire
from phasebus.telemetry.journal import find_journal
from tests.support.programs import free_port, program
from tests.support.two_nodes import TwoNodes, in_no_hurry
from tests.support.waiting import wait_until

pytestmark = pytest.mark.anyio


def config(ray: TwoNodes, model: str, port: int, **fields: Any) -> ClusterConfig:
    service = {"port": port}
    whole = LLMConfig(
        **{"model": model, "engine": "none", "nodes": 2, "ray": {"address": ray.address}, "service": service, **fields},
    )
    return in_no_hurry(whole)


def state(port: int) -> Any:
    return get(f"http://127.0.0.1:{port}/state").json()


def hub_of(port: int) -> psutil.Process:
    """The process that listens there."""
    (found,) = (
        connection.pid
        for connection in psutil.net_connections("tcp4")
        if connection.status == psutil.CONN_LISTEN and tuple(connection.laddr)[-1:] == (port,) and connection.pid
    )
    return psutil.Process(found)


def get(url: str) -> httpx.Response:
    return httpx.get(url, headers={"Accept": "text/plain"}, timeout=60)


def checked(promtool: str, metrics: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([promtool, "check", "metrics"], input=metrics, capture_output=True, text=True, check=False)


def answers(port: int) -> bool:
    try:
        return state(port) is not None
    except httpx.TransportError:
        return False


def offset_of(node: str, address: Address) -> int:
    """Send nothing as `node`; return how much of its journal the hub has."""
    wire = Wire(address)
    try:
        return wire.send(Parcel(node, 0), b"")
    finally:
        wire.close()


def ready(port: int) -> bool:
    try:
        answer = get(f"http://127.0.0.1:{port}/readyz")
    except httpx.TransportError:
        return False
    return answer.status_code == 200 and [node["status"] for node in answer.json()["nodes"]] == ["ready"] * 2


async def test_the_hub_serves_all_nodes_and_rejects_a_peer_without_its_secret(
    nodes: TwoNodes, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    promtool = program("promtool", "prometheus")
    port = free_port()
    hubs: list[Any] = []
    connect = HubConnection.__init__

    def connect_and_remember(self: HubConnection, hub: Any) -> None:
        hubs.append(hub)
        connect(self, hub)

    monkeypatch.setattr(HubConnection, "__init__", connect_and_remember)
    async with await initialize_cluster(config(nodes, model, port)):
        await anyio.to_thread.run_sync(wait_until, lambda: ready(port), "the hub has received everything")
        seen = {node["name"]: node for node in state(port)["nodes"]}
        assert sorted(seen) == ["node-0", "node-1"]
        metrics = get(f"http://127.0.0.1:{port}/metrics").text
        check = checked(promtool, metrics)
        assert check.returncode == 0, check.stdout + check.stderr
        for line in (
            'phasebus_cluster_node_ready{node="node-1"} 1.0',
            'phasebus_cluster_nodes{state="ready"} 2.0',
            'phasebus_cluster_phase_duration_seconds_count{phase="download"} 2.0',
            f'phasebus_cluster_node_startup_duration_seconds_count{{model="{model}"}} 2.0',
            "phasebus_cluster_startup_duration_seconds_count 1.0",
            "phasebus_cluster_ready 1.0",
        ):
            assert line in metrics
        targets = get(f"http://127.0.0.1:{port}/sd").json()
        assert [target["labels"]["node"] for target in targets] == ["node-0", "node-1"]
        for target in targets:
            assert "phasebus_ready 1.0" in get(f"http://{target['targets'][0]}/metrics").text
        address = await anyio.to_thread.run_sync(lambda: Address(*ray.get(hubs[0].address.remote(), timeout=60)))
        assert offset_of("node-0", address) > 0
        for secret in ("", address.secret[:-1], address.secret.upper(), "0" * len(address.secret)):
            with pytest.raises(OSError, match=r"closed|reset|Broken"):
                offset_of("intruder", address._replace(secret=secret))
        assert {node["name"] for node in state(port)["nodes"]} == {"node-0", "node-1"}


async def test_a_hub_that_dies_delays_no_start_and_receives_everything_again(nodes: TwoNodes, model: str) -> None:
    port = free_port()
    started: list[Cluster] = []

    async def kill_hub(phase: str, config: Any, data: Any) -> None:
        if phase == "post_placement_group":
            await anyio.to_thread.run_sync(wait_until, lambda: answers(port), "the hub is there")
            await anyio.to_thread.run_sync(hub_of(port).kill)

    with anyio.fail_after(120):
        started.append(await initialize_cluster(config(nodes, model, port, driver_callbacks=[kill_hub])))
    async with started[0]:
        await anyio.to_thread.run_sync(wait_until, lambda: ready(port), "the hub is back and knows everything")
        before = get(f"http://127.0.0.1:{port}/metrics").text
        hub_of(port).kill()
        await anyio.to_thread.run_sync(wait_until, lambda: ready(port), "and once more")
        after = get(f"http://127.0.0.1:{port}/metrics").text

    def counts(metrics: str) -> list[str]:
        return sorted(line for line in metrics.splitlines() if "_count{" in line or "node_events_total{" in line)

    assert counts(before) == counts(after)


async def test_a_restarted_hub_receives_missed_lines_and_counts_dropped_events(nodes: TwoNodes, model: str) -> None:
    port = free_port()

    async def kill_hub(phase: str, config: Any, data: Any) -> None:
        if phase == "post_placement_group":
            await anyio.to_thread.run_sync(wait_until, lambda: answers(port), "the hub is there")
            await anyio.to_thread.run_sync(hub_of(port).kill)

    with anyio.fail_after(240):
        cluster = await initialize_cluster(config(nodes, model, port, callbacks=[storm], driver_callbacks=[kill_hub]))
    async with cluster:
        run = find_journal()
        journals = {"driver": run, **{name: run.with_suffix("") / f"{name}.jsonl" for name in ("node-0", "node-1")}}

        def everything_arrived() -> bool:
            if not answers(port):
                return False
            metrics = get(f"http://127.0.0.1:{port}/metrics").text
            written = {name: journal.read_bytes().count(b"\n") for name, journal in journals.items()}
            return {name: value(metrics, "events_total", name) for name in journals} == written

        await anyio.to_thread.run_sync(wait_until, everything_arrived, "every line of every journal has arrived")
        recorded = journals["node-1"].read_bytes().count(b'"done"')
        metrics = get(f"http://127.0.0.1:{port}/metrics").text
        assert recorded < _STORM
        assert value(metrics, "events_dropped_total", "node-1") == _STORM - recorded
        assert value(metrics, "events_dropped_total", "node-0") == 0


_STORM = 60_000
"""More events than a journal's buffer holds and than can be written meanwhile."""


async def storm(phase: str, config: Any, data: Any) -> None:
    if phase == "post_download" and data[NODE_NAME] == "node-1":
        step = current_step()
        assert step is not None
        for number in range(_STORM):
            await step.progress(number)


def value(metrics: str, name: str, node: str) -> float | None:
    start = f'phasebus_cluster_node_{name}{{node="{node}"}} '
    return next((float(line.removeprefix(start)) for line in metrics.splitlines() if line.startswith(start)), None)
