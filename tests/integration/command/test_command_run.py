"""`phasebus run --download` as a process of its own, around commands that are no engine."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.support.command import Command, phases
from tests.support.programs import free_port
from tests.support.waiting import wait_until

Start = Callable[..., Command]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Start]:
    started: list[Command] = []

    def start(*command: str, options: tuple[str, ...] = ()) -> Command:
        started.append(Command("run", "--port=0", *options, "--", *command, state=tmp_path))
        return started[-1]

    yield start
    for command in started:
        command.close()


def test_a_download_that_fails_ends_the_command(run: Start) -> None:
    command = run("sleep", "1000", options=("--download", "/not/there"))
    assert command.wait() == 1
    assert "/not/there" in command.stderr
    assert command.left_behind() == []
    assert phases(command.journal())["download"] == "failed"


SERVER = """\
#!{python}
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Healthy(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass

HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Healthy).serve_forever()
"""


def test_a_server_without_the_plugin_is_ready_when_its_health_is(run: Start, tmp_path: Path) -> None:
    server = tmp_path / "vllm"
    server.write_text(SERVER.format(python=sys.executable))
    server.chmod(0o755)
    command = run(str(server), "serve", "org/model", "--served-model-name", "nice", "--port", str(free_port()))
    command_log = "the plugin of phasebus was not loaded"
    wait_until(lambda: command_log in command.stderr, "the warning")
    command.send(signal.SIGTERM)
    assert command.wait() == -signal.SIGTERM
    node = next(step for step in command.journal().steps if step.kind == "node")
    assert (node.outcome, node.attributes["model"]) == ("finished", "nice")
    assert command.stderr.count(command_log) == 1


DYING = """\
#!{python}
import os, pathlib, signal, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

starts = pathlib.Path({starts!r})
with starts.open("a") as file:
    file.write(f"{{os.getpid()}}\\n")
number = len(starts.read_text().splitlines())
if number == 2:
    sys.exit(5)

class Healthy(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        if self.path == "/die":
            os.kill(os.getpid(), signal.SIGKILL)
    def log_message(self, *_):
        pass

HTTPServer.allow_reuse_address = True
HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Healthy).serve_forever()
"""


def test_a_command_that_fails_is_started_again_and_is_not_ready_meanwhile(run: Start, tmp_path: Path) -> None:
    server, starts, port = tmp_path / "vllm", tmp_path / "starts", free_port()
    server.write_text(DYING.format(python=sys.executable, starts=str(starts)))
    server.chmod(0o755)
    options = ("-v", "--restart", "on-failure:3")
    command = run(str(server), "serve", "org/model", "--port", str(port), options=options)
    wait_until(lambda: command.get("/readyz").status_code == 200, "the engine answers")
    with suppress(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{port}/die", timeout=60)
    wait_until(lambda: command.get("/readyz").status_code == 503, "it is not ready")
    wait_until(lambda: command.get("/readyz").status_code == 200, "another one answers")
    metrics = command.get("/metrics", Accept="text/plain").text
    command.send(signal.SIGTERM)
    assert command.wait() == -signal.SIGTERM
    assert len(set(starts.read_text().splitlines())) == 3
    restarts = [step for step in command.journal().steps if step.kind == "engine_restart"]
    assert [(step.outcome, step.attributes["attempt"]) for step in restarts] == [("failed", 1), ("finished", 2)]
    assert "ended by SIGKILL" in str(restarts[0].attributes["cause"])
    engines = [step.id for step in command.journal().steps if step.kind == "engine"]
    assert [str(step.attributes["linked_to"]).split("-")[2] for step in restarts] == engines[:2]
    assert 'phasebus_engine_restarts_total{model="org/model",outcome="finished"} 1.0' in metrics
    assert 'phasebus_engine_restarts_total{model="org/model",outcome="failed"} 1.0' in metrics
    assert command.stderr.count("it is started again") == 2


def test_a_command_that_goes_on_failing_ends_with_its_own_exit_code(run: Start) -> None:
    command = run("sh", "-c", "exit 3", options=("--restart", "on-failure:1"))
    assert command.wait() == 3
    assert command.stderr.count("it is started again in 1 s") == 1
