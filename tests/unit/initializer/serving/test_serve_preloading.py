"""When a replica of Ray Serve LLM begins its fork server."""

from __future__ import annotations

import logging
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from phasebus.initializer.engines.protocol import EngineError, ForkServerUse
from phasebus.initializer.integrations.ray_serve import preloading, status
from phasebus.initializer.integrations.ray_serve.first_line import BEGINS_FORKSERVER
from phasebus.initializer.integrations.ray_serve.preloading import early_preloading, preload_early, preload_engine

REPLICA = "SERVE_REPLICA::app#BusServer:tiny#abcd"


def actor(name: str | None, *, mode: int = 1, connected: bool = True) -> Any:
    """Ray, in a process that is an actor of this name; None for a task."""
    context = SimpleNamespace(worker=SimpleNamespace(mode=mode), get_actor_name=lambda: name)
    return SimpleNamespace(SCRIPT_MODE=0, is_initialized=lambda: connected, get_runtime_context=lambda: context)


@pytest.fixture
def preloaded(monkeypatch: pytest.MonkeyPatch) -> list[ForkServerUse | None]:
    """What was preloaded, in a process that is a replica."""
    begun: list[ForkServerUse | None] = []
    monkeypatch.setattr(preloading, "preload_engine", begun.append)
    monkeypatch.setitem(sys.modules, "ray", actor(REPLICA))
    return begun


@pytest.mark.parametrize(
    ("options", "use"), [({}, None), ({"forkserver": None}, None), ({"forkserver": "keep"}, "keep")]
)
def test_replica_begins_the_fork_server_that_its_callback_names(
    preloaded: list[ForkServerUse | None], options: dict[str, Any], use: ForkServerUse | None
) -> None:
    preload_early(early_preloading(options))
    assert preloaded == [use]


def test_wrong_option_is_left_to_the_callback_to_report(preloaded: list[ForkServerUse | None]) -> None:
    assert early_preloading({"forkserver": "stays"}) == {}


@pytest.mark.parametrize("variables", [{}, {BEGINS_FORKSERVER: "stays"}])
def test_replica_without_a_known_value_begins_none(
    preloaded: list[ForkServerUse | None], variables: dict[str, str]
) -> None:
    preload_early(variables)
    assert preloaded == []


@pytest.mark.parametrize(
    "ray",
    [
        None,
        actor(REPLICA, connected=False),
        actor(REPLICA, mode=0),
        actor(None),
        actor(""),
        actor("SERVE_CONTROLLER_ACTOR"),
    ],
    ids=["no Ray", "an engine's process", "a driver", "a task", "an unnamed actor", "Serve's controller"],
)
def test_only_a_replica_begins_a_fork_server(
    preloaded: list[ForkServerUse | None], monkeypatch: pytest.MonkeyPatch, ray: Any
) -> None:
    if ray is None:
        monkeypatch.delitem(sys.modules, "ray", raising=False)
    else:
        monkeypatch.setitem(sys.modules, "ray", ray)
    preload_early({BEGINS_FORKSERVER: "owned"})
    assert preloaded == []
    assert not status.is_replica()


def test_replica_starts_without_an_observer_that_cannot_preload(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise EngineError("the engine acme cannot be imported")

    monkeypatch.setattr(preloading, "find_observer", fail)
    with caplog.at_level(logging.WARNING):
        preload_engine()
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [
        "EngineError: the engine acme cannot be imported"
    ]
