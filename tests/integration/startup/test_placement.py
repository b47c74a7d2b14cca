"""Placement on a real Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from phasebus.bus import Context
from phasebus.initializer import (
    PLACEMENT_BUNDLES,
    PLACEMENT_GROUP,
    LLMConfig,
    PlacementError,
    PrePlacementGroup,
    initialize_node,
)
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("ray_cluster", "own_folders")]


@pytest.fixture
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHASEBUS_STATE_DIR", str(tmp_path / "state"))


@pytest.fixture
def model(tmp_path: Path) -> str:
    (tmp_path / "config.json").write_text("{}")
    return str(tmp_path)


def config(model: str, bundles: list[dict[str, float]], seconds: float = 120, **fields: Any) -> LLMConfig:
    return LLMConfig(model=model, engine="none", placement={"bundles": bundles, "timeout_seconds": seconds}, **fields)  # type: ignore[arg-type]


async def test_ray_reserves_and_releases_the_bundles_of_a_callback(model: str) -> None:
    async def one_bundle(event: PrePlacementGroup, context: Context) -> None:
        context[PLACEMENT_BUNDLES] = [{"CPU": 2}]

    async with await initialize_node(config(model, [{"CPU": 1000}], callbacks=[one_bundle])) as node:
        assert node.context[PLACEMENT_GROUP].bundle_specs == [{"CPU": 2}]
        wait_for_free_cpus(0)
    wait_for_free_cpus(2)


async def test_a_group_that_a_callback_brings_is_used_and_is_the_callbacks_own(model: str) -> None:
    from ray.util import placement_group, placement_group_table, remove_placement_group

    async def bring(event: PrePlacementGroup, context: Context) -> None:
        group = context[PLACEMENT_GROUP] = placement_group([{"CPU": 1}])
        await anyio.to_thread.run_sync(group.wait)

    async with await initialize_node(config(model, [{"CPU": 1000}], callbacks=[bring])) as node:
        brought = node.context[PLACEMENT_GROUP]
        assert brought.bundle_specs == [{"CPU": 1}]
    assert placement_group_table(brought)["state"] == "CREATED"
    remove_placement_group(brought)
    wait_for_free_cpus(2)


async def test_resources_that_are_not_there_are_explained_and_nothing_stays_reserved(model: str) -> None:
    with pytest.raises(PlacementError) as caught:
        await initialize_node(config(model, [{"CPU": 1000, "rack": 1}], seconds=2))
    message = str(caught.value)
    assert "not free within 2 s" in message
    assert "asked for: (1000 CPU, 1 rack), PACK" in message
    assert "has 2 CPU" in message
    assert "in the phase 'placement_group'" in caught.value.__notes__
    wait_for_free_cpus(2)


async def test_a_bundle_that_ray_rejects_is_an_error(model: str) -> None:
    with pytest.raises(PlacementError, match="Ray rejects the bundles"):
        await initialize_node(config(model, [{"CPU": 0}]))


def wait_for_free_cpus(amount: float) -> None:
    """Return once so many CPUs are free: Ray reports what was reserved and released with a delay."""
    import ray

    wait_until(lambda: ray.available_resources().get("CPU", 0) == amount, f"{amount} CPUs are free")
