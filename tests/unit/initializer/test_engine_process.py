"""The resources that the process of a vLLM occupies in its placement group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from phasebus.bus import Bus
from phasebus.initializer.engines.protocol import Launch
from phasebus.initializer.engines.vllm import process
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
    ("args", "occupied"),
    [
        ({}, {"CPU": 2.0, "GPU": 1.0}),
        ({"distributed_executor_backend": "mp"}, {"CPU": 2.0, "GPU": 1.0}),
        ({"distributed_executor_backend": "ray"}, {"CPU": 2.0}),
    ],
)
async def test_the_engine_process_leaves_the_gpu_to_workers_that_are_ray_actors(
    args: Mapping[str, Any], occupied: Mapping[str, float], monkeypatch: pytest.MonkeyPatch
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
        assert started == [occupied]
        assert begun.fits(wanted)
        on_ray = replace(wanted, args={"distributed_executor_backend": "ray"})
        assert begun.fits(on_ray) == ("GPU" not in occupied)


class Actor:
    async def call(self, method: str, *args: Any) -> None:
        assert method == "load"
