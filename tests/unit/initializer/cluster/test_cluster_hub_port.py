"""The port of a cluster's hub: a taken one does not fail the start."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from phasebus.bus import Bus
from phasebus.initializer.cluster import start
from phasebus.initializer.cluster.config import ClusterConfig
from phasebus.telemetry import Telemetry


@pytest.mark.anyio
@pytest.mark.parametrize("host", ["127.0.0.1", "192.0.2.1"])
async def test_a_port_that_the_hub_cannot_have_does_not_fail_the_start(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports: list[int] = []

    @asynccontextmanager
    async def hub(host: str, port: int, *_: Any, **__: Any) -> AsyncIterator[None]:
        ports.append(port)
        yield

    monkeypatch.setattr(start, "running_hub", hub)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = listener.getsockname()[1]
        service = {"host": host, "port": taken}
        config = ClusterConfig.model_validate({"models": [{"model": "m"}], "service": service})
        cluster = start.ClusterStart(config, Bus(), Telemetry(port=None, environment={}))
        await cluster._start_hub()
        await cluster._resources.aclose()
    assert taken not in ports
    assert len(ports) == (host == "127.0.0.1")
