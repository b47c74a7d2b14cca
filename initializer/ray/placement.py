"""Reserving resources with Ray placement groups, and explaining why a reservation fails."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anyio
import anyio.to_thread

from phasebus.bus import PhasebusError
from phasebus.initializer.ray.config import Bundles, Strategy


class PlacementError(PhasebusError):
    """Raised when Ray cannot reserve the requested resources, or not in time."""


async def reserve(bundles: Bundles, strategy: Strategy, seconds: float) -> Any:
    """Reserve `bundles` and return their placement group.

    Args:
        bundles: The resources of each bundle.
        strategy: How they are spread over nodes.
        seconds: Maximum time to wait, in seconds.

    Raises:
        PlacementError: The bundles are malformed, or their resources were not free in time; the message contains the
            request and the resources of the cluster.
    """
    from ray.util import placement_group

    try:
        group = await anyio.to_thread.run_sync(lambda: placement_group(bundles, strategy=strategy))
    except ValueError as error:
        raise PlacementError(f"Ray rejects the bundles {bundles}: {error}") from error
    waited = 0.0
    try:
        while not await anyio.to_thread.run_sync(group.wait, 1, abandon_on_cancel=True):
            waited += 1
            if waited >= seconds:
                raise PlacementError(await anyio.to_thread.run_sync(_explain, bundles, strategy, seconds))
    except BaseException:
        with anyio.CancelScope(shield=True):
            await release(group)
        raise
    return group


async def release(group: Any) -> None:
    """Release the resources that `group` reserves."""
    from ray.util import remove_placement_group

    await anyio.to_thread.run_sync(remove_placement_group, group)


async def nodes_of(group: Any) -> list[str]:
    """Return the ids of Ray's nodes for the bundles of a reserved `group`, in the order of the bundles."""
    from ray.util import placement_group_table

    table = await anyio.to_thread.run_sync(placement_group_table, group)
    nodes: Mapping[int, str] = table["bundles_to_node_id"]
    return [nodes[index] for index in sorted(nodes)]


def bundle_of(group: Any, bundle: int = 0) -> Mapping[str, float]:
    """Return the resources of the bundle of `group` with the index `bundle`; one CPU without a group.

    Raises:
        PlacementError: A callback provided an object that is not a placement group.
    """
    if group is None:
        return {"CPU": 1.0}
    try:
        return dict(group.bundle_specs[bundle])
    except AttributeError:
        raise PlacementError(
            f"placement_group is {group!r}, which is not a placement group; use the result of ray.util.placement_group(…), or None"
        ) from None


def has_gpus() -> bool:
    """Return whether the cluster has any GPU."""
    import ray

    return bool(ray.cluster_resources().get("GPU"))


def default_bundles(workers: int) -> Bundles:
    """Return the bundle for an engine with `workers` workers on one node: a CPU each, and a GPU each if there are GPUs."""
    bundle = {"CPU": float(workers)}
    if has_gpus():
        bundle["GPU"] = float(workers)
    return [bundle]


def _explain(bundles: Bundles, strategy: str, timeout: float) -> str:
    import ray

    def shown(resources: dict[str, float]) -> str:
        internal = (":", "memory", "_group_")  # addresses, byte counts, and names of reserved bundles
        public = {k: v for k, v in sorted(resources.items()) if not any(part in k for part in internal)}
        return ", ".join(f"{v:g} {k}" for k, v in public.items()) or "nothing"

    nodes = [node for node in ray.nodes() if node["Alive"]]
    return "\n".join(
        [
            f"the resources were not free within {timeout:g} s",
            f"  asked for: {' + '.join(f'({shown(bundle)})' for bundle in bundles)}, {strategy}",
            *(f"  node {node['NodeManagerAddress']} has {shown(node['Resources'])}" for node in nodes),
            f"  free in the whole cluster: {shown(ray.available_resources())}",
            f"  {_verdict(bundles, strategy, [node['Resources'] for node in nodes])}",
            "  request less (placement.bundles), free resources that are in use, or add nodes",
        ]
    )


def _verdict(bundles: Bundles, strategy: str, nodes: list[Mapping[str, float]]) -> str:
    """Return a message: the request is pending until resources are released, or infeasible with these nodes."""
    for bundle in bundles:
        if not any(all(node.get(name, 0) >= amount for name, amount in bundle.items()) for node in nodes):
            return "infeasible: no node is large enough for one of the bundles"
    if strategy == "STRICT_SPREAD" and len(bundles) > len(nodes):
        return f"infeasible: STRICT_SPREAD puts {len(bundles)} bundles on as many nodes, and there are {len(nodes)}"
    return "pending: the nodes are large enough, so the missing resources are in use"
