"""A node of a cluster, in its own process: its start does not depend on being observed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from phasebus.initializer.cluster import node_runtime
from phasebus.initializer.cluster.node_runtime import NodeRuntime
from phasebus.initializer.node.config import LLMConfig
from phasebus.telemetry import RunIdentity, Telemetry


class StartedError(Exception):
    """Raised in place of a start."""


@pytest.mark.anyio
async def test_a_node_starts_where_the_address_of_the_service_is_not_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration has one address for all nodes, such as that of the driver."""
    started: list[Telemetry] = []

    async def start(config: LLMConfig, *, telemetry: Telemetry, **_: Any) -> None:
        started.append(telemetry)
        raise StartedError

    monkeypatch.setattr(node_runtime, "initialize_node", start)
    config = LLMConfig.model_validate({"model": "m", "service": {"host": "192.0.2.1"}})
    with pytest.raises(StartedError):
        await NodeRuntime(RunIdentity.fresh("n", {}), config.service).run(config, {}, (), None)
    assert [telemetry.service for telemetry in started] == [None]


@pytest.mark.parametrize(
    ("host", "target"),
    [("127.0.0.1", "127.0.0.1:9464"), ("::1", "[::1]:9464"), ("0.0.0.0", "[2001:db8::7]:9464"), (None, None)],
)
def test_target_for_the_hub_has_the_address_of_the_node_with_brackets_if_it_is_ipv6(
    monkeypatch: pytest.MonkeyPatch, host: str | None, target: str | None
) -> None:
    monkeypatch.setattr(node_runtime, "node_address", lambda: "2001:db8::7")
    service = None if host is None else SimpleNamespace(host=host, port=9464)
    telemetry: Any = SimpleNamespace(service=service)
    assert node_runtime._target(telemetry) == target
