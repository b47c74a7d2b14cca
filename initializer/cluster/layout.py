"""The layout of a cluster: planning the bundles of its engines, and assigning reserved bundles to nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from phasebus.initializer.cluster.config import ClusterConfig
from phasebus.initializer.engines.registry import find_launcher
from phasebus.initializer.node.config import LLMConfig
from phasebus.initializer.ray.config import Bundles, Strategy
from phasebus.initializer.ray.placement import PlacementError

_WITHOUT_ENGINE = {"CPU": 0.01}
"""The resources of a node without an engine; a bundle cannot be empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePlan:
    """One engine, before it is placed.

    Attributes:
        config: Its configuration.
        bundles: Its bundles: one on a single node, one for each worker if it spans several nodes.
        nodes: The number of its nodes.
    """

    config: LLMConfig
    bundles: Bundles
    nodes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """A node's place in an engine.

    Attributes:
        node: The node's name.
        bundle: The index of its bundle in the placement group.
    """

    node: str
    bundle: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSeats:
    """One engine with the places of its nodes.

    Attributes:
        config: Its configuration.
        bundles: The indices of its bundles in the placement group.
        seats: Its nodes; the first one runs the engine, the others provide the model for its workers.
    """

    config: LLMConfig
    bundles: Sequence[int]
    seats: Sequence[Seat]


def plan_engines(config: ClusterConfig, *, gpus: bool) -> list[EnginePlan]:
    """Return the engines of a cluster.

    Args:
        config: The cluster.
        gpus: Whether there are GPUs, so that each worker needs one.
    """
    plans = []
    for model in config.models:
        engines = model.replicas or model.nodes
        span = max(1, model.nodes // engines)
        bundles = _bundles(model, span, gpus=gpus) if model.placement.bundles is None else model.placement.bundles
        plans += [EnginePlan(config=model, bundles=bundles, nodes=span) for _ in range(engines)]
    return plans


def strategy_of(config: ClusterConfig, plans: Sequence[EnginePlan], *, own_ray: bool) -> Strategy:
    """Return how the bundles are spread by default.

    A local Ray that this process started has one node, so the configured number of nodes is not enforced on it. On an
    existing cluster, the number is enforced if every engine has one bundle on a node of its own.
    """
    if config.strategy is not None:
        return config.strategy
    if own_ray or any(plan.nodes > 1 for plan in plans):
        return "PACK"
    if len(plans) == sum(model.nodes for model in config.models) and all(len(plan.bundles) == 1 for plan in plans):
        return "STRICT_SPREAD"
    return "SPREAD"


def assign_seats(plans: Sequence[EnginePlan], bundles: Bundles, nodes_of_bundles: Sequence[str]) -> list[EngineSeats]:
    """Return the engines with the places of their nodes.

    Args:
        plans: The engines.
        bundles: The reserved bundles: those of the plans, or those of a callback.
        nodes_of_bundles: The id of Ray's node for each bundle.

    Raises:
        PlacementError: The number of bundles cannot be divided among the engines.
    """
    planned = sum(len(plan.bundles) for plan in plans)
    if len(bundles) == planned:
        shares = [len(plan.bundles) for plan in plans]
    elif len(bundles) % len(plans) == 0 and bundles:
        shares = [len(bundles) // len(plans)] * len(plans)
    else:
        raise PlacementError(
            f"placement_bundles has {len(bundles)} bundles, and {len(plans)} engines cannot share them evenly; "
            f"{planned} were proposed, in the order of the engines"
        )
    engines, taken, nodes = [], 0, 0
    for plan, share in zip(plans, shares, strict=True):
        own = range(taken, taken + share)
        first_on_each = {nodes_of_bundles[index]: index for index in reversed(own)}
        seats = [
            Seat(node=f"{plan.config.name or 'node'}-{nodes + number}", bundle=bundle)
            for number, bundle in enumerate(sorted(first_on_each.values()))
        ]
        engines.append(EngineSeats(config=plan.config, bundles=tuple(own), seats=seats))
        taken += share
        nodes += len(seats)
    return engines


def _bundles(model: LLMConfig, span: int, *, gpus: bool) -> Bundles:
    workers = find_launcher(model.engine).workers(model.engine_args)
    if workers == 0:
        return [dict(_WITHOUT_ENGINE) for _ in range(span)]
    if span == 1:
        return [{"CPU": float(workers), **({"GPU": float(workers)} if gpus else {})}]
    # one bundle per worker, so that the workers can be on different nodes
    return [{"CPU": 1.0, **({"GPU": 1.0} if gpus else {})} for _ in range(max(workers, span))]
