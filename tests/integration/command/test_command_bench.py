from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from phasebus.telemetry.journal import read_journal

PHASEBUS = [sys.executable, "-m", "phasebus.initializer.cli"]


@pytest.fixture
def configs(tmp_path: Path) -> tuple[str, str]:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (tmp_path / "slow.py").write_text("import time\ndef wait(event, context): time.sleep(0.2)\n")
    common = f"model: {model}\nengine: none\nservice: {{port: 0}}\n"
    (tmp_path / "usual.yaml").write_text(common)
    (tmp_path / "callback.yaml").write_text(common + "callbacks: ['slow:wait']\n")
    (tmp_path / "broken.yaml").write_text(common + "callbacks: ['slow:none']\n")
    return "usual.yaml", "callback.yaml"


def phasebus(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PHASEBUS_STATE_DIR": str(folder / "state")}
    return subprocess.run(
        [*PHASEBUS, *arguments], capture_output=True, text=True, check=False, cwd=folder, env=environment, timeout=300
    )


def test_bench_starts_configurations_in_turns_and_compare_reads_what_it_keeps(
    configs: tuple[str, str], tmp_path: Path
) -> None:
    ended = phasebus("bench", "-n", "2", *configs, "--into", "kept", "--cold", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    order = [line.split()[1].rstrip(":") for line in ended.stderr.splitlines()]
    assert order == [configs[0], configs[1], configs[1], configs[0]]
    assert "2 starts" in ended.stdout
    assert "There are too few runs" in ended.stdout
    assert not (tmp_path / "state" / "runs").exists()  # the history of the user is not that of a benchmark
    compared = phasebus("compare", "kept/usual", "kept/callback", folder=tmp_path)
    assert compared.returncode == 0
    assert "callback wait" in compared.stdout
    again = phasebus("bench", *configs, "--into", "kept", folder=tmp_path)
    assert (again.returncode, "is not empty" in again.stderr) == (1, True)


def test_a_start_that_fails_ends_the_bench_with_its_message(configs: tuple[str, str], tmp_path: Path) -> None:
    ended = phasebus("bench", "-n", "1", "broken.yaml", folder=tmp_path)
    assert ended.returncode == 1
    assert "broken.yaml did not become ready" in ended.stderr
    assert "slow:none" in ended.stderr


def test_advise_measures_what_a_start_without_a_slow_callback_saves(configs: tuple[str, str], tmp_path: Path) -> None:
    ended = phasebus("advise", "--measure", "-n", "1", configs[1], "--into", "advice", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    usual, changed = ended.stdout.splitlines()
    assert usual.startswith("as it is: ready in ")
    assert changed.startswith("drop the callback wait")
    assert ", measured " in changed
    called = {path.name: callbacks(path) for path in (tmp_path / "advice").iterdir()}
    assert (called.pop("first"), called.pop("as-it-is")) == ({"wait"}, {"wait"})
    assert list(called.values()) == [set()]


def callbacks(folder: Path) -> set[str]:
    """Return the names of the callbacks in the journals of a folder."""
    steps = [step for path in folder.rglob("*.jsonl") for step in read_journal(path).steps]
    assert steps
    return {step.name for step in steps if step.kind == "callback"}
