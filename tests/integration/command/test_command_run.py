"""`phasebus run --download` as a process of its own, around commands that are no engine."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

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
