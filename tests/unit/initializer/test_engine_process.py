"""What the process of a vLLM takes of its place, and what it is called where Ray has started it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from phasebus.bus import Bus
from phasebus.initializer.engines import Launch
from phasebus.initializer.engines.vllm import process
from phasebus.initializer.engines.vllm.inside.spans import ray_worker_name
from phasebus.telemetry import Telemetry


def launch(bus: Bus, args: Mapping[str, Any]) -> Launch:
    return Launch(
        bus=bus,
        telemetry=Telemetry(port=None),
        step="f" * 16,
        model="m",
        local=True,
        args=args,
        env={},
        runtime_env={},
        placement_group=SimpleNamespace(bundle_specs=[{"CPU": 2.0, "GPU": 1.0}]),
        bundle=0,
        preload=False,
        iteration_sampling=0,
        timeout=1.0,
        log=Path("log"),
    )


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("args", "taken"),
    [
        ({}, {"CPU": 2.0, "GPU": 1.0}),
        ({"distributed_executor_backend": "mp"}, {"CPU": 2.0, "GPU": 1.0}),
        ({"distributed_executor_backend": "ray"}, {"CPU": 2.0}),
    ],
)
async def test_it_leaves_the_gpu_to_workers_that_are_actors_of_rays(
    args: Mapping[str, Any], taken: Mapping[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM's executor on Ray asks for a GPU of each bundle, that of the engine's own process among them."""
    started: list[Mapping[str, float]] = []

    async def start(actor: type, *_: Any, resources: Mapping[str, float], **options: Any) -> Any:
        started.append(resources)
        return Actor()

    monkeypatch.setattr(process, "start_actor", start)
    async with Bus() as bus:
        wanted = launch(bus, args)
        begun = await process.VLLMProcess.begin(wanted)
        assert started == [taken]
        assert begun.fits(wanted)
        on_ray = replace(wanted, args={"distributed_executor_backend": "ray"})
        assert begun.fits(on_ray) == ("GPU" not in taken)


class Actor:
    async def call(self, method: str, *args: Any) -> None:
        assert method == "load"


@pytest.mark.parametrize(
    ("actor", "name"),
    [("vllm_Worker_1789_TP0_PP1", "Worker_TP0_PP1"), ("vllm_Worker_1789", "Worker"), ("mine", None), (None, None)],
)
def test_a_worker_on_ray_is_called_what_vllm_calls_its_actor(
    actor: str | None, name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = SimpleNamespace(get_actor_name=lambda: actor)
    ray = SimpleNamespace(is_initialized=lambda: True, get_runtime_context=lambda: context)
    monkeypatch.setitem(sys.modules, "ray", ray)
    assert ray_worker_name() == name


def test_a_process_without_ray_is_no_worker_on_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False))
    assert ray_worker_name() is None
