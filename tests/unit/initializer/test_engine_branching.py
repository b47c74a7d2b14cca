"""The fork server of a Ray Serve replica: which one is used, and what happens where none can be forked."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing import util
from pathlib import Path
from typing import Any

import pytest

from phasebus.initializer.engines.protocol import EngineError, ForkServerUse
from phasebus.initializer.engines.vllm import branching, forking
from phasebus.initializer.engines.vllm.inside.forkserver import begin, channel, imported, safety
from phasebus.initializer.engines.vllm.inside.forkserver.kept import client, starting
from phasebus.initializer.engines.vllm.inside.forkserver.kept.client import NotForkedError
from phasebus.initializer.integrations.ray_serve.preloading import preload_engine
from tests.support.waiting import wait_until


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
    monkeypatch.setattr(channel, "_requests", None)
    preload_engine(option)
    assert begun == ([] if used is None else [used])


@pytest.mark.usefixtures("restored_channel")
@pytest.mark.parametrize(("changed", "begun"), [("PLAIN_VARIABLE", []), ("HF_READ_BY_AN_IMPORT", ["owned"])])
def test_replica_begins_another_fork_server_only_if_its_imports_would_differ(
    monkeypatch: pytest.MonkeyPatch, changed: str, begun: list[str]
) -> None:
    started: list[str] = []
    for name in ("PHASEBUS_FORKSERVER", changed):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(begin, "start_server", lambda: started.append("owned"))
    requests, _, owner = begin.open_channel()
    os.close(owner)
    monkeypatch.setenv(changed, "1")
    preload_engine()
    assert started == begun
    assert channel.is_available() == (not begun)
    requests.setblocking(False)
    if begun:
        assert requests.recv(100) == channel.RELEASE
    requests.close()


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
        requests.close()
        os.close(owner)
        if not can_start:
            raise OSError(12, "Cannot allocate memory")

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


def refuse_pidfd(pid: int) -> int:
    raise OSError(38, "Function not implemented")


@pytest.mark.usefixtures("restored_channel")
@pytest.mark.parametrize("is_in_python", [True, False])
@pytest.mark.parametrize("begin_one", [begin.start_server, branching.fork_server_from_kept])
def test_processes_are_spawned_where_a_system_call_of_the_fork_server_is_missing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, begin_one: Callable[[], None], is_in_python: bool
) -> None:
    if is_in_python:
        monkeypatch.setattr(os, "pidfd_open", refuse_pidfd)
        why = "pidfd_open fails, as before Linux 5.3 and in some sandboxes: Function not implemented"
    else:
        monkeypatch.setattr(safety, "_CALLS", ((os, "no_such_call"),))
        why = "this build of Python has no os.no_such_call; use a newer build, or that of the distribution"
    with caplog.at_level(logging.WARNING):
        begin_one()
        with forking.begun_server({}):
            pass  # a start goes on
    messages = [record.getMessage().removeprefix("phasebus: ") for record in caplog.records]
    assert messages == [f"no fork server, so vLLM spawns its processes: {why}"]
    assert not channel.is_available()
    with pytest.raises(EngineError, match=r"no fork server can be started: .*(pidfd_open|no_such_call)"):
        forking.start(None)


@pytest.mark.usefixtures("restored_channel")
def test_processes_are_spawned_where_no_fork_server_can_be_started(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(util, "spawnv_passfds", refuse)
    with caplog.at_level(logging.WARNING):
        begin.start_server()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert not channel.is_available()


def test_server_that_stays_has_its_own_session_in_each_build_of_python(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spawn = os.posix_spawn

    def without_setsid(*arguments: Any, **options: Any) -> int:
        if "setsid" in options:
            raise NotImplementedError
        return spawn(*arguments, **options)

    monkeypatch.setattr(os, "posix_spawn", without_setsid)
    log, nothing = tmp_path / "log", os.open(os.devnull, os.O_RDONLY)
    program = "import os; print(os.getsid(0), os.getcwd(), flush=True)"
    starting._start_detached([sys.executable, "-S", "-c", program], [nothing], os.environ, log, 0)
    os.close(nothing)
    wait_until(lambda: log.read_text().endswith("\n"), "the process has printed a line")
    session, folder = log.read_text().split()
    assert (int(session) == os.getsid(0), folder) == (False, "/")


SERVER = """\
import os
def main(folder, *descriptors):
    links = [os.readlink(f"/proc/self/fd/{each}") for each in descriptors[:2]]
    print([link.partition(":")[0].rpartition(".")[2] for link in links], flush=True)
"""


def test_server_is_started_by_a_process_the_standard_streams_of_which_are_closed(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "server.py").write_text(SERVER)
    (tmp_path / "starts.py").write_text(
        "import os, sys\n"
        "from pathlib import Path\n"
        f"from {starting.__name__} import Address, start_server\n"
        f"import {starting.__name__} as starting\n"
        "starting._MODULE = 'server'\n"
        "address = Address(Path(sys.argv[1]))\n"
        "for number in range(3):\n"
        "    os.close(number)\n"
        "start_server(address, os.environ, owner=None, idle_seconds=None)\n"
        "os._exit(0)\n"
    )
    environment = {"PATH": os.defpath, "PYTHONPATH": str(tmp_path)}
    subprocess.run([sys.executable, tmp_path / "starts.py", tmp_path], env=environment, check=True, timeout=60)
    (log,) = tmp_path.glob("*.log")
    wait_until(lambda: log.read_text().endswith("\n"), "the server has printed a line")
    assert log.read_text() == "['socket', 'lock']\n"
