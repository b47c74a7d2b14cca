"""The resources that the process of a vLLM occupies in its placement group."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from phasebus.bus import Bus, StepFinished
from phasebus.initializer.engines.protocol import EngineError, Launch, Serving
from phasebus.initializer.engines.vllm import process
from phasebus.telemetry import Telemetry

ENGINE, SERVER = 4194305, 4194306  # no process has an id as large


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


@pytest.mark.anyio
@pytest.mark.parametrize(("wanted", "bound", "warns"), [(8000, 8001, True), (8000, 8000, False), (0, 4711, False)])
async def test_server_on_another_port_than_the_wanted_one_is_warned_of(
    wanted: int, bound: int, warns: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    actor = Actor(port=bound)

    async def start(*_: Any, **__: Any) -> Any:
        return actor

    monkeypatch.setattr(process, "start_actor", start)
    compiled: dict[str, Any] = {}
    async with Bus() as bus:
        bus.subscribe(
            StepFinished, lambda event: compiled.update({event.name: event.attributes.get("compile_seconds")})
        )
        await process.VLLMProcess.begin(replace(launch(bus, {}), serve=Serving(host="127.0.0.1", port=wanted)))
    assert compiled["import_server"] == 0.5
    assert actor.called == ["listen", "load", "load_server"]
    expected = [f"port {wanted} of 127.0.0.1 is in use; the engine serves on port {bound}"] if warns else []
    assert [record.getMessage() for record in caplog.records if record.name == "phasebus.engine"] == expected


@pytest.mark.anyio
async def test_port_in_use_ends_the_start_before_the_engine_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    actor = Actor(port=None)

    async def start(*_: Any, **__: Any) -> Any:
        return actor

    monkeypatch.setattr(process, "start_actor", start)
    async with Bus() as bus:
        with pytest.raises(EngineError, match=r"^in use$"):
            await process.VLLMProcess.begin(replace(launch(bus, {}), serve=Serving(host="127.0.0.1", port=8000)))
    assert actor.called == ["listen", "kill"]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("preload", "backend", "used", "forked"),
    [
        (True, "mp", "keep", True),
        (True, "mp", "keep", False),
        (True, "ray", "owned", False),
        (False, "mp", None, False),
    ],
)
async def test_engine_in_a_fork_belongs_to_the_actor_and_an_executor_on_ray_has_none(
    preload: bool, backend: str, used: str | None, forked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    actor = Actor()
    actor.engine = ENGINE if forked else actor.pid

    async def start(*_: Any, **__: Any) -> Any:
        return actor

    monkeypatch.setattr(process, "start_actor", start)
    monkeypatch.setattr(process, "importing_process", lambda environment: SERVER)
    actor.host = platform.node()
    steps: dict[str, Any] = {}
    async with Bus() as bus:
        bus.subscribe(StepFinished, lambda event: steps.update({event.name: event.attributes.get("pid")}))
        wanted = launch(bus, {"distributed_executor_backend": backend})
        await process.VLLMProcess.begin(replace(wanted, preload=preload, forkserver="keep"))
    assert (actor.forkserver, actor.adopted) == (used, ENGINE if forked else None)
    assert steps["import_engine"] == (SERVER if forked else actor.pid)


class Actor:
    """An actor that binds `port`; None if it cannot."""

    host, pid = "host", 1

    def __init__(self, port: int | None = 0) -> None:
        self.port = port
        self.called: list[str] = []
        self.forkserver: str | None = None
        self.adopted: int | None = None
        self.engine = self.pid

    async def call(self, method: str, *args: Any) -> Any:
        self.called.append(method)
        if self.port is None:
            raise EngineError("in use")
        if method == "load":
            self.forkserver = args[0]
            return self.engine, ()
        if method == "load_server":
            return {"compile_seconds": 0.5}
        return self.port

    def adopt(self, pid: int) -> None:
        self.adopted = pid

    async def kill(self) -> None:
        self.called.append("kill")
