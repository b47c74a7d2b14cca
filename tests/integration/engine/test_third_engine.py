"""The page 'a third engine': a package with an engine and a source, installed, named in YAML, and started."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command import Command
from tests.support.docs import blocks

PAGE = "docs/guides/engines.md"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the package of the page is installed in."""
    folder = tmp_path_factory.mktemp("third")
    (project,) = blocks(PAGE, "toml")
    (module,) = blocks(PAGE, "python")
    package = folder / "package"
    package.mkdir()
    (package / "pyproject.toml").write_text(project)
    (package / "echo_engine.py").write_text(module)
    command: list[str | Path] = [
        *(Path(sys.prefix) / "bin" / "uv", "pip", "install", "--python", sys.executable, "--quiet"),
        *("--offline", "--no-deps", "--no-build-isolation", "--target", folder / "site", package),
    ]
    installed = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert installed.returncode == 0, installed.stderr
    return folder / "site"


@pytest.fixture
def environment(site: Path, tmp_path: Path) -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])} | {
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }


@pytest.fixture
def up(tmp_path: Path, environment: dict[str, str]) -> Iterator[Command]:
    (configuration,) = (each for each in blocks(PAGE, "yaml") if "engine: echo" in each)
    (tmp_path / "node.yaml").write_text(configuration)
    arguments = ("up", str(tmp_path / "node.yaml"), "--once", "--port=0", "--prompt=hello")
    command = Command(*arguments, state=tmp_path, environment=environment)
    yield command
    command.close()


def test_node_starts_with_an_engine_and_a_source_of_another_package(up: Command) -> None:
    assert up.wait() == 0, up.stderr
    assert "text     'hello hello'" in up.stdout
    steps = {(step.kind, step.name): step for step in up.journal().steps}
    assert steps["engine", "echo"].outcome == "finished"
    assert steps["engine_step", "load_weights"].attributes["process"] == "echo"
    (download,) = (step for step in steps.values() if step.kind == "download")
    assert download.attributes["source"] == "memory"


def test_command_lists_the_engine_with_its_package(environment: dict[str, str], tmp_path: Path) -> None:
    command = Command("engines", state=tmp_path, environment=environment)
    assert command.wait() == 0
    assert "echo  echo-engine 1.0  (echo_engine:EchoLauncher)" in command.stdout
