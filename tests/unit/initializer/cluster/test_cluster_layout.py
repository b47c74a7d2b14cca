from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from phasebus.initializer import ClusterConfig, LLMConfig, PlacementError
from phasebus.initializer.cluster.layout import assign_seats, plan_engines, strategy_of


def cluster(*models: dict[str, Any], **fields: Any) -> ClusterConfig:
    return ClusterConfig(models=[LLMConfig(**{"model": "m", **model}) for model in models], **fields)


def test_a_model_on_n_nodes_is_an_engine_with_a_bundle_on_each() -> None:
    config = cluster({"nodes": 3, "engine_args": {"tensor_parallel_size": 4}})
    plans = plan_engines(config, gpus=True)
    assert [plan.bundles for plan in plans] == [[{"CPU": 4, "GPU": 4}]] * 3
    assert strategy_of(config, plans, own_ray=False) == "STRICT_SPREAD"
    engines = assign_seats(plans, [{"CPU": 4}] * 3, ["a", "b", "c"])
    assert [[seat.node for seat in engine.seats] for engine in engines] == [["node-0"], ["node-1"], ["node-2"]]


def test_an_engine_that_spans_nodes_has_a_bundle_a_worker_and_a_seat_a_node() -> None:
    config = cluster(
        {"nodes": 2, "replicas": 1, "engine_args": {"tensor_parallel_size": 2, "pipeline_parallel_size": 2}}
    )
    plans = plan_engines(config, gpus=True)
    assert [plan.bundles for plan in plans] == [[{"CPU": 1, "GPU": 1}] * 4]
    assert strategy_of(config, plans, own_ray=False) == "PACK"
    (engine,) = assign_seats(plans, plans[0].bundles, ["a", "a", "b", "b"])
    assert engine.bundles == (0, 1, 2, 3)
    assert [(seat.node, seat.bundle) for seat in engine.seats] == [("node-0", 0), ("node-1", 2)]


def test_more_replicas_than_nodes_share_the_nodes() -> None:
    config = cluster({"nodes": 2, "replicas": 4})
    plans = plan_engines(config, gpus=False)
    assert len(plans) == 4
    assert strategy_of(config, plans, own_ray=False) == "SPREAD"


def test_models_side_by_side_are_named_after_themselves() -> None:
    config = cluster({"name": "chat", "nodes": 2}, {"name": "embed"})
    plans = plan_engines(config, gpus=False)
    engines = assign_seats(plans, [{"CPU": 1}] * 3, ["a", "b", "c"])
    assert [seat.node for engine in engines for seat in engine.seats] == ["chat-0", "chat-1", "embed-2"]


def test_a_local_ray_is_one_node_for_any_number_of_nodes() -> None:
    config = cluster({"nodes": 2})
    assert strategy_of(config, plan_engines(config, gpus=False), own_ray=True) == "PACK"
    config = cluster({"nodes": 2}, strategy="SPREAD")
    assert strategy_of(config, plan_engines(config, gpus=False), own_ray=True) == "SPREAD"


@pytest.mark.parametrize(("nodes", "replicas"), [(3, 2), (2, 3)])
def test_replicas_that_do_not_fit_the_nodes_are_rejected(nodes: int, replicas: int) -> None:
    with pytest.raises(ValidationError, match="cannot be spread evenly"):
        LLMConfig(model="m", nodes=nodes, replicas=replicas)


def test_bundles_that_a_callback_changed_are_divided_evenly_or_rejected() -> None:
    plans = plan_engines(cluster({"nodes": 2}), gpus=False)
    engines = assign_seats(plans, [{"CPU": 1}] * 4, ["a", "a", "b", "b"])
    assert [engine.bundles for engine in engines] == [(0, 1), (2, 3)]
    with pytest.raises(PlacementError, match="3 bundles, and 2 engines cannot share them evenly; 2 were proposed"):
        assign_seats(plans, [{"CPU": 1}] * 3, ["a", "b", "c"])


@given(st.integers(1, 6), st.integers(1, 4), st.data())
def test_every_bundle_belongs_to_one_engine_and_every_node_of_an_engine_has_one_seat(
    engines: int, span: int, data: st.DataObject
) -> None:
    plans = plan_engines(cluster({"engine": "none", "nodes": engines * span, "replicas": engines}), gpus=False)
    bundles = [bundle for plan in plans for bundle in plan.bundles]
    nodes = data.draw(st.lists(st.sampled_from("abcdef"), min_size=len(bundles), max_size=len(bundles)))
    seated = assign_seats(plans, bundles, nodes)
    assert [index for engine in seated for index in engine.bundles] == list(range(len(bundles)))
    names = [seat.node for engine in seated for seat in engine.seats]
    assert len(set(names)) == len(names)
    for engine in seated:
        on = [nodes[seat.bundle] for seat in engine.seats]
        assert sorted(on) == sorted({nodes[index] for index in engine.bundles})
        assert engine.seats[0].bundle == engine.bundles[0]
