from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from phasebus.initializer.cli import main
from phasebus.telemetry.journal import find_journal, read_journal


def up(tmp_path: Path, text: str) -> subprocess.CompletedProcess[str]:
    config = tmp_path / "node.yaml"
    config.write_text(text)
    command = [sys.executable, "-m", "phasebus.initializer.cli", "up", str(config), "--once", "--port", "0"]
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path.rstrip(os.pathsep)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=60)


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


def test_a_taken_port_is_said_before_anything_is_begun(tmp_path: Path, model: Path) -> None:
    config = tmp_path / "node.yaml"
    config.write_text(f"model: {model}\nengine: none\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = CliRunner().invoke(main, ["up", str(config), "--port", str(taken.getsockname()[1])])
    assert result.exit_code == 1
    assert "is taken by another program" in result.output
    assert not list(tmp_path.rglob("*.jsonl"))


@pytest.mark.parametrize("command", [[], ["up"], ["demo"]])
def test_every_command_explains_itself(command: list[str]) -> None:
    result = CliRunner().invoke(main, [*command, "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.output
