"""A fork server that stays: when the start of a node begins one."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from phasebus.bus import Bus
from phasebus.initializer import LLMConfig, initialize_node
from phasebus.initializer.engines.none import NoEngine
from phasebus.initializer.engines.protocol import Launch
from phasebus.initializer.node import startup
from phasebus.telemetry import Telemetry


class Launcher(NoEngine):
    """A launcher whose engine can be forked from a server that stays."""

    def __init__(self) -> None:
        self.begun: list[Launch] = []

    def begin_kept_fork_server(self, launch: Launch) -> None:
        self.begun.append(launch)


@pytest.mark.anyio
@pytest.mark.parametrize(("forkserver", "begins"), [("keep", True), ("owned", False)])
async def test_node_begins_a_server_that_stays_if_it_is_configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forkserver: Literal["keep", "owned"], begins: bool
) -> None:
    (tmp_path / "config.json").write_text("{}")
    launcher = Launcher()
    monkeypatch.setattr(startup, "find_launcher", lambda name: launcher)
    config = LLMConfig(model=str(tmp_path), engine="none", forkserver=forkserver, engine_env={"A": "1"})
    async with Bus() as bus, await initialize_node(config, telemetry=Telemetry(port=None), bus=bus):
        assert [launch.env for launch in launcher.begun] == ([{"A": "1"}] if begins else [])
