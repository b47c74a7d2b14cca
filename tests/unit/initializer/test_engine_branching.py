"""The fork server of a Ray Serve replica: which one is used, and what happens where none can be forked."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Iterator

import pytest

from phasebus.initializer.engines.protocol import ForkServerUse
from phasebus.initializer.engines.vllm import branching, forking
from phasebus.initializer.engines.vllm.inside.forkserver import begin, channel, imported
from phasebus.initializer.engines.vllm.inside.forkserver.kept import client
from phasebus.initializer.engines.vllm.inside.forkserver.kept.client import NotForkedError
from phasebus.initializer.integrations.ray_serve.replica import preload_engine


@pytest.fixture
def restored_channel(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(imported, "_recorded", ())
    yield
    if channel._requests is not None:
        channel._requests.close()
    channel.use(None)


@pytest.mark.parametrize(
    ("variable", "option", "used"),
    [
        (None, None, "owned"),
        (None, "keep", "keep"),
        ("keep", None, "keep"),
        ("keep", "owned", "owned"),
        ("0", None, None),
    ],
)
def test_replica_uses_the_fork_server_of_its_option_or_else_of_the_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, option: ForkServerUse | None, used: str | None
) -> None:
    begun: list[str] = []
    monkeypatch.delenv("PHASEBUS_FORKSERVER", raising=False)
    if variable is not None:
        monkeypatch.setenv("PHASEBUS_FORKSERVER", variable)
    monkeypatch.setattr(branching, "fork_server_from_kept", lambda: begun.append("keep"))
    monkeypatch.setattr(begin, "start_server", lambda: begun.append("owned"))
    preload_engine(option)
    assert begun == ([] if used is None else [used])


@pytest.mark.parametrize(("kills", "use"), [("true", "existing"), ("1", "existing"), ("false", "keep"), (None, "keep")])
def test_no_server_is_started_where_ray_would_kill_it(
    monkeypatch: pytest.MonkeyPatch, kills: str | None, use: ForkServerUse
) -> None:
    opened: list[None] = []

    def refuse(**_: object) -> None:
        opened.append(None)
        raise OSError

    name = "RAY_kill_child_processes_on_worker_exit_with_raylet_subreaper"
    monkeypatch.delenv(name, raising=False)
    if kills is not None:
        monkeypatch.setenv(name, kills)
    monkeypatch.setattr(client, "opened", refuse)
    forking.begin_kept({})
    assert (opened, forking.use_in_ray(os.environ)) == ([] if use == "existing" else [None], use)


@pytest.mark.usefixtures("restored_channel")
@pytest.mark.parametrize("can_start", [True, False])
def test_server_that_cannot_be_forked_is_started_or_else_requests_fail(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, can_start: bool
) -> None:
    started = threading.Event()

    def refuse(passed: list[int]) -> None:
        raise NotForkedError("no memory")

    def start(requests: socket.socket, clients: socket.socket, owner: int) -> None:
        started.set()
        if not can_start:
            raise OSError(12, "Cannot allocate memory")
        requests.close()
        os.close(owner)

    monkeypatch.setattr(branching, "_fork", refuse)
    monkeypatch.setattr(begin, "start_process", start)
    with caplog.at_level(logging.WARNING):
        branching._fork_or_start(*begin.open_channel())
    assert started.is_set()
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "the fork server is no fork of one that stays",
        *([] if can_start else ["no fork server, so vLLM spawns its processes"]),
    ]
    assert channel._requests is not None
    with pytest.raises(BrokenPipeError):
        channel._requests.send(b"fork")
