from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from phasebus.initializer.cli import main
from phasebus.initializer.cli.failures import reported


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


def test_a_signal_outside_of_the_start_ends_with_one_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, reported():
        raise KeyboardInterrupt
    assert ended.value.code == 128 + signal.SIGINT
    assert capsys.readouterr().err == "phasebus: ended by SIGINT; nothing of the start-up is left running\n"
