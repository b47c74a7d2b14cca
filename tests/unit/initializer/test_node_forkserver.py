"""A fork server that is begun before a node's engine: when its start begins one, and when it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Literal

import pytest

from phasebus.bus import Bus
from phasebus.initializer import LLMConfig, initialize_node
from phasebus.initializer.engines.none import NoEngine
from phasebus.initializer.engines.protocol import Launch
from phasebus.initializer.node import startup
from phasebus.initializer.ray.config import PlacementConfig, RayConfig
from phasebus.telemetry import Telemetry


class Launcher(NoEngine):
    """A launcher whose engine can be forked from a server that was started before."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, Launch]] = []
        self.ended = 0

    def begin_kept_fork_server(self, launch: Launch) -> None:
        self.begun.append(("keep", launch))

    @contextmanager
    def begun_fork_server(self, launch: Launch) -> Iterator[None]:
        self.begun.append(("owned", launch))
        try:
            yield
        finally:
            self.ended += 1


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch) -> Launcher:
    launcher = Launcher()
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(startup, "find_launcher", lambda name: launcher)
    return launcher


@pytest.mark.anyio
@pytest.mark.parametrize(("forkserver", "address", "ended"), [("keep", "ray-head:6379", 0), ("owned", None, 1)])
async def test_node_begins_a_fork_server_that_ends_with_the_start_or_stays(
    tmp_path: Path, launcher: Launcher, forkserver: Literal["keep", "owned"], address: str | None, ended: int
) -> None:
    (tmp_path / "config.json").write_text("{}")
    ray = RayConfig(address=address)
    config = LLMConfig(model=str(tmp_path), engine="none", forkserver=forkserver, engine_env={"A": "1"}, ray=ray)
    async with Bus() as bus, await initialize_node(config, telemetry=Telemetry(port=None), bus=bus):
        assert [(name, launch.env) for name, launch in launcher.begun] == [(forkserver, {"A": "1"})]
        assert launcher.ended == ended


@pytest.mark.anyio
@pytest.mark.parametrize("change", [{"engine_preload": False}, {"ray": {"address": "ray-head:6379"}}])
async def test_node_begins_no_fork_server_without_preloading_or_on_another_ray(
    tmp_path: Path, launcher: Launcher, change: dict[str, object]
) -> None:
    (tmp_path / "config.json").write_text("{}")
    config = LLMConfig.model_validate({"model": str(tmp_path), "engine": "none", **change})
    async with Bus() as bus, await initialize_node(config, telemetry=Telemetry(port=None), bus=bus):
        assert launcher.begun == []


@pytest.mark.anyio
async def test_server_that_stays_does_not_compete_with_the_start_of_a_local_ray(
    tmp_path: Path, launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text("{}")
    begun_before: list[int] = []

    @asynccontextmanager
    async def connected(_: RayConfig) -> AsyncIterator[bool]:
        begun_before.append(len(launcher.begun))
        yield True

    monkeypatch.setattr(startup, "connected", connected)
    monkeypatch.setattr(launcher, "workers", lambda args: 1)
    config = LLMConfig(model=str(tmp_path), engine="none", forkserver="keep", placement=PlacementConfig(bundles=[]))
    async with Bus() as bus, await initialize_node(config, telemetry=Telemetry(port=None), bus=bus):
        assert begun_before == [0]
        assert [name for name, _ in launcher.begun] == ["keep"]


@pytest.mark.anyio
async def test_fork_server_ends_with_a_start_that_fails(tmp_path: Path, launcher: Launcher) -> None:
    config = LLMConfig(model=str(tmp_path / "absent"), engine="none")
    async with Bus() as bus:
        with pytest.raises(Exception, match="absent"):
            await initialize_node(config, telemetry=Telemetry(port=None), bus=bus)
    assert (len(launcher.begun), launcher.ended) == (1, 1)
