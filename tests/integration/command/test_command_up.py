"""`phasebus up` as a process of its own: its messages and its end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from phasebus.telemetry.journal import find_journal, read_journal
from tests.support.command import Command
from tests.support.waiting import wait_until


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHASEBUS_STATE_DIR", str(tmp_path / "state"))


def up(tmp_path: Path, text: str) -> subprocess.CompletedProcess[str]:
    config = tmp_path / "node.yaml"
    config.write_text(text)
    command = [sys.executable, "-m", "phasebus.initializer.cli", "up", str(config), "--once", "--port", "0"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_a_node_without_an_engine_comes_up_and_shows_where_the_time_went(tmp_path: Path, model: Path) -> None:
    ended = up(tmp_path, f"model: {model}\nengine: none\n")
    assert ended.returncode == 0, ended.stderr
    assert "where the time went" in ended.stdout
    assert "ready in" in ended.stdout
    assert read_journal(find_journal()).state == "closed"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: /not/there\nengine: none\n", "there is no model at '/not/there'"),
        ("modle: x\n", "did you mean 'model'?"),
        ("model: x\ncallbacks: ['nowhere:x']\n", "there is no module 'nowhere'"),
    ],
)
def test_bad_input_ends_with_one_clear_message_and_no_traceback(tmp_path: Path, text: str, message: str) -> None:
    ended = up(tmp_path, text)
    assert ended.returncode == 1
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_callback_that_raises_is_named_with_the_line_it_raised_at(tmp_path: Path, model: Path) -> None:
    (tmp_path / "mine.py").write_text("def broken(phase, config, data):\n    raise ValueError('boom')\n")
    ended = up(tmp_path, f"model: {model}\nengine: none\ncallbacks: ['mine:broken']\n")
    assert ended.returncode == 1
    assert "phasebus: ValueError: boom" in ended.stderr
    assert "raised by the callback 'broken' during phase 'pre_initialization'" in ended.stderr
    assert "mine.py:2" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.fixture
def start(tmp_path: Path, model: Path) -> Iterator[Callable[[str], Command]]:
    """Start `phasebus up` on a node without an engine, with one callback, which is in a file beside the configuration."""
    started: list[Command] = []

    def begin(callback: str) -> Command:
        (tmp_path / "mine.py").write_text(callback)
        config = tmp_path / "node.yaml"
        config.write_text(f"model: {model}\nengine: none\ncallbacks: ['mine:hang']\nservice: {{port: 0}}\n")
        started.append(Command("up", str(config), state=tmp_path))
        return started[-1]

    yield begin
    for command in started:
        command.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_ends_a_callback_that_blocks_and_names_it(
    start: Callable[[str], Command], tmp_path: Path, number: signal.Signals
) -> None:
    command = start(
        "import pathlib, time\n"
        "def hang(phase, config, data):\n"
        f"    pathlib.Path({str(tmp_path / 'there')!r}).touch()\n"
        "    time.sleep(3600)\n"
    )
    wait_until((tmp_path / "there").exists, "the callback blocks")
    command.send(number)
    assert command.wait() == 128 + number
    assert f"phasebus: {number.name}: stopping" in command.stderr
    assert f"ended by {number.name}, in the callback hang ({tmp_path}/mine.py:" in command.stderr
    assert "raised by the callback 'hang' during phase 'pre_initialization'" in command.stderr
    assert "Traceback" not in command.stderr
    assert command.journal().state == "closed"


def test_a_second_signal_ends_a_start_at_once(start: Callable[[str], Command]) -> None:
    command = start(
        "import anyio\n"
        "async def hang(phase, config, data):\n"
        "    with anyio.CancelScope(shield=True):\n"
        "        await anyio.sleep_forever()\n"
    )
    command.wait_for("callback", "hang")
    command.send(signal.SIGINT)
    wait_until(lambda: "still stopping, waiting for: callback hang" in command.stderr, "the reminder")
    command.send(signal.SIGTERM)
    assert command.wait() == 128 + signal.SIGTERM
    assert "phasebus: SIGTERM again: ended at once" in command.stderr


def test_an_interrupted_up_is_gone_although_a_server_never_answers(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts connections, as its backlog has room
        config = tmp_path / "node.yaml"
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/model.safetensors"
        config.write_text(f"model: {url}\nengine: none\nservice: {{port: 0}}\n")
        command = Command("up", str(config), state=tmp_path)
        try:
            command.wait_for("phase", "download")
            command.send(signal.SIGTERM)
            wait_until(lambda: "nothing of the start-up is left running" in command.stderr, "the last line")
            assert command.wait(45) == 128 + signal.SIGTERM  # the server's connection would be awaited for a minute
        finally:
            command.close()


INTERRUPTED_IMPORT = """
import os, signal, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ.get("INTERRUPTED_AT"):
            del os.environ["INTERRUPTED_AT"]
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
from phasebus.initializer.cli import main
main()
"""


@pytest.mark.parametrize("module", ["click", "rich.live"])
def test_an_interrupt_during_the_first_imports_has_no_traceback(tmp_path: Path, model: Path, module: str) -> None:
    config = tmp_path / "node.yaml"
    config.write_text(f"model: {model}\nengine: none\nservice: {{port: 0}}\n")
    command = [sys.executable, "-c", INTERRUPTED_IMPORT, "up", str(config)]
    environment = {**os.environ, "INTERRUPTED_AT": module}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=environment)
    assert ended.returncode == 128 + signal.SIGINT, ended.stderr
    assert "Traceback" not in ended.stderr
