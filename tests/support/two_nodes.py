"""A real Ray of two nodes: two raylets on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from phasebus.initializer import ClusterConfig, LLMConfig
from tests.support.waiting import wait_until

_STORE_BYTES = 96 * 2**20


def in_no_hurry(config: LLMConfig) -> ClusterConfig:
    """Return the configuration of a cluster that tolerates a minute without answers to pings, as on a busy machine."""
    return ClusterConfig.of(config).model_copy(update={"silence_seconds": 60.0})


class TwoNodes:
    """A running cluster of two raylets with two CPUs each, one of which has a resource ``first``, the other ``second``.

    Attributes:
        address: Where it is.
    """

    def __init__(self, cluster: Any, **resources: Any) -> None:
        self._cluster = cluster
        self._resources = resources
        self._second = self._add()
        self.address: str = cluster.address

    def _add(self) -> Any:
        return self._cluster.add_node(
            num_cpus=2, object_store_memory=_STORE_BYTES, resources={"second": 1}, **self._resources
        )

    def kill_raylet_of(self, worker: int) -> None:
        """Kill the raylet that has started the process `worker`; not that of the head, which cannot be replaced."""
        raylet = psutil.Process(worker).parent()
        assert raylet is not None
        assert raylet.pid == self._second.all_processes["raylet"][0].process.pid
        raylet.kill()

    def replace_killed(self) -> None:
        """Start a new raylet in place of the one that was killed."""
        self._cluster.remove_node(self._second, allow_graceful=False)
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("PHASEBUS_STATE_DIR")  # of the one test; a node keeps what it finds in its environment
            patch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
            self._second = self._add()

    def wait_until_free(self) -> None:
        """Return once no resource is reserved, by a connection of its own: Ray reports released resources with a delay."""
        import ray

        ray.init(address=self.address, log_to_driver=False, logging_level="ERROR")
        try:
            wait_until(lambda: ray.available_resources().get("CPU", 0) == _alive_cpus(ray), "every CPU is free")
            groups = ray.util.placement_group_table().values()
            assert [group for group in groups if group["state"] != "REMOVED"] == []
        finally:
            ray.shutdown()


def _alive_cpus(ray: Any) -> float:
    return sum(float(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"])


@contextmanager
def two_nodes(**resources: Any) -> Iterator[TwoNodes]:
    """Run a cluster of two nodes; `resources` are what each says it has besides its CPUs, as Ray's `add_node` takes it."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    head = {
        "num_cpus": 2,
        "include_dashboard": False,
        "object_store_memory": _STORE_BYTES,
        "resources": {"first": 1},
        **resources,
    }
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield TwoNodes(cluster, **resources)
    finally:
        cluster.shutdown()


class SharedTwoNodes:
    """Two nodes for all test modules of one folder: each start of them takes ten seconds.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: TwoNodes | None = None
        self._resources = ExitStack()

    def started(self) -> TwoNodes:
        """Return the nodes, which are started if they do not run."""
        if self._running is None:
            self._running = self._resources.enter_context(two_nodes())
        return self._running

    def end_before(self, following: pytest.Item | None) -> None:
        """End the nodes unless the following test is in the folder."""
        if following is None or following.path.parent != self._folder:
            self._running = None
            self._resources.close()
