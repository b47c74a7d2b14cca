"""A real Prometheus, with the scrape configuration of deploy/, that finds the nodes of a real cluster by its hub."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
import yaml

from phasebus.initializer import LLMConfig, initialize_cluster
from tests.support.programs import free_port
from tests.support.prometheus import RULES, Prometheus, prometheus
from tests.support.two_nodes import TwoNodes, in_no_hurry
from tests.support.waiting import wait_until

pytestmark = pytest.mark.anyio


def scraping(folder: Path, port: int) -> dict[str, Any]:
    """The shipped configuration, of a hub at this port, in more of a hurry."""
    (folder / "rules.yml").write_text((RULES / "rules.yml").read_text())
    shipped = (RULES / "prometheus.yml").read_text()
    config: dict[str, Any] = yaml.safe_load(shipped.replace("phasebus:9464", f"127.0.0.1:{port}"))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["scrape_configs"][1]["http_sd_configs"][0]["refresh_interval"] = "1s"
    return config


def by_node(running: Prometheus, query: str) -> dict[str, float]:
    return {labels["node"]: value for labels, value in running.query(query)}


def value_is(running: Prometheus, query: str, expected: float) -> bool:
    return [value for _, value in running.query(query)] == [expected]


async def test_prometheus_discovers_every_node_through_the_hub_and_scrapes_it(
    nodes: TwoNodes, model: str, tmp_path: Path
) -> None:
    port = free_port()
    config = LLMConfig(
        model=model,
        engine="none",
        nodes=2,
        ray={"address": nodes.address},  # type: ignore[arg-type]
        service={"port": port},  # type: ignore[arg-type]
    )
    with prometheus(tmp_path, scraping(tmp_path, port)) as running:

        async def comes_to(query: str, expected: dict[str, float]) -> None:
            await anyio.to_thread.run_sync(wait_until, lambda: by_node(running, query) == expected, query)

        async with await initialize_cluster(in_no_hurry(config)):
            both = {"node-0": 1.0, "node-1": 1.0}
            await comes_to('up{job="phasebus-nodes"}', both)
            await comes_to('phasebus_ready{job="phasebus-nodes"}', both)
            await comes_to('phasebus_cluster_node_ready{job="phasebus",node=~"node-.*"}', both)
            for name in ("phasebus_node_startups_total", "phasebus_cluster_node_startups_total"):
                # without a filter: the hub and the nodes, both scraped, count nothing twice
                query = f'sum({name}{{outcome="finished"}})'
                await anyio.to_thread.run_sync(wait_until, partial(value_is, running, query, 2.0), query)
            targets = running.get("targets")["activeTargets"]
            assert {
                target["labels"]["node"]
                for target in targets
                if target["discoveredLabels"].get("__meta_url") == f"http://127.0.0.1:{port}/sd"
            } == set(both)
