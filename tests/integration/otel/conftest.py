from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.command import Command

ENGINE = str(Path(__file__).with_name("engine_program.py"))

Start = Callable[..., Command]


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TRACEPARENT", "OTEL_EXPORTER_OTLP_ENDPOINT", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def up(tmp_path: Path, model: Path) -> Iterator[Start]:
    """Run `phasebus up --once` of a node without an engine to its end, with these variables."""
    config = tmp_path / "node.yaml"
    config.write_text(f"model: {model}\nengine: none\nservice: {{port: null}}\n")
    with ExitStack() as stack:

        def start(**environment: str) -> Command:
            command = Command("up", str(config), "--once", state=tmp_path / "state", environment=environment)
            stack.callback(command.close)
            assert command.wait() == 0, command.stderr
            return command

        yield start


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Start]:
    """Run `phasebus run` of a program that traces itself as vLLM does to its end, with these variables."""
    with ExitStack() as stack:

        def start(**environment: str) -> Command:
            arguments = ("run", "--port", "0", "-v", "--", sys.executable, ENGINE)
            command = Command(*arguments, state=tmp_path / "state", environment=environment)
            stack.callback(command.close)
            assert command.wait() == 0, command.stderr
            return command

        yield start
