"""Every command of the README, the quickstart and the examples, in their order, in an empty folder.

What needs a model of a hub, or an engine, is replaced: the demo, `vllm serve` and starts with vLLM have tests of their own.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.docs import ROOT, blocks
from tests.support.programs import free_port
from tests.support.waiting import wait_until

SECONDS = 120
IN_BACKGROUND = ("phasebus run ", "phasebus watch")
REPLACED = {
    "make run ARGS=--once": "phasebus up node.yaml --once",
    ". .venv/bin/activate": "true",
    "vllm serve Qwen/Qwen2.5-0.5B-Instruct": f"{sys.executable} -c 'import time; time.sleep(600)'",
    "phasebus watch": "phasebus watch http://localhost:9464",
    "OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 ": "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:9 ",
    " --set engine_args.max_model_len=512": " --set engine_args.max_model_len=512 --once",
}
"""Parts of documented commands, and what a test runs in their place."""


class Reader:
    """Runs commands as a reader does: in one folder, one after the other; what does not end goes on in the background."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        self._port = port
        self._running: list[subprocess.Popen[bytes]] = []
        binaries = Path(sys.executable).parent
        variables = {
            "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
            "PHASEBUS_STATE_DIR": str(folder / "state"),
            "PHASEBUS_PORT": str(port),
            "MODEL": str(folder / "model"),
        }
        foreign = ("PHASEBUS_", "OTEL_", "TRACEPARENT", "RAY_", "VLLM_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        self._environment = {**kept, **variables}

    def run(self, command: str) -> None:
        """Run one command of a page."""
        if command.startswith("cd "):
            self._folder /= command.removeprefix("cd ")
            return
        for documented, replacement in REPLACED.items():
            command = command.replace(documented, replacement)
        command = command.replace("localhost:9464", f"127.0.0.1:{self._port}")
        if command.endswith("--once") is False and re.search(r"phasebus up [\w.]+$", command):
            command += " --once"
        if command.startswith(IN_BACKGROUND):
            self._start(command)
            return
        ended = subprocess.run(
            ["sh", "-c", command],
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        assert ended.returncode in self._codes(command), f"{command}\n{ended.stdout}\n{ended.stderr}"

    def _start(self, command: str) -> None:
        process = subprocess.Popen(
            shlex.split(command),
            cwd=self._folder,
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self._running.append(process)
        wait_until(lambda: process.poll() is None and self._answers(), command, seconds=SECONDS)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self._port}/livez", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    @staticmethod
    def _codes(command: str) -> tuple[int, ...]:
        """Return the exit codes of a documented command; a report of differences has one of its own if there are any."""
        return (0, 3) if " diff " in command else (0,)

    def end(self) -> None:
        """End what still runs."""
        for process in self._running:
            process.terminate()
        for process in self._running:
            process.communicate(timeout=SECONDS)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    running = Reader(tmp_path, free_port())
    yield running
    running.end()


def commands(page: str) -> list[str]:
    """Return the commands of the console blocks on a page, without comments."""
    lines = "\n".join(blocks(page, "console")).splitlines()
    return [re.sub(r"\s+# .*", "", line).strip() for line in lines if line.strip()]


@pytest.mark.parametrize("page", ["docs/quickstart.md", "README.md"])
def test_every_command_of_a_page_succeeds_in_the_documented_order(page: str, reader: Reader, tmp_path: Path) -> None:
    (yaml, *_) = (block for block in blocks(page, "yaml") if "callbacks" in block)
    if "engine:" not in yaml:
        yaml += "engine: none\n"
    (tmp_path / "node.yaml").write_text(yaml)
    callback = next(block for block in blocks(page, "python") if "def " in block)
    functions = callback.partition("async def short_contexts")[0].replace("import anyio\n", "")
    (tmp_path / "my_callbacks.py").write_text(functions)
    documented = commands(page)
    assert len(documented) >= 8
    for command in documented:
        reader.run(command)


def test_commands_of_the_examples_succeed_in_the_documented_order(reader: Reader, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    documented = commands("examples/README.md")
    assert "cd examples/node" in documented
    for command in documented:
        reader.run(command)


def test_first_command_of_the_readme_is_the_demo_that_has_a_test_of_its_own() -> None:
    assert commands("README.md")[0] == "make run ARGS=--once"
    assert "$(BIN)/phasebus demo $(ARGS)" in (ROOT / "Makefile").read_text()
