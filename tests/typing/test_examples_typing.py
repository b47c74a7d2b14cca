"""The examples of the documentation pass strict type checkers as they stand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.docs import ROOT, blocks

PAGES = ("docs/guides/bus.md", "README.md")


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    for page in PAGES:
        for number, example in enumerate(blocks(page, "python"), 1):
            if "mistake" not in example:  # mistakes are for the type checkers to refuse
                (tmp_path / f"{Path(page).stem.lower()}_{number}.py").write_text(example)
    assert len(list(tmp_path.iterdir())) >= len(PAGES)
    return tmp_path


def test_examples_pass_mypy_strict_but_for_untyped_callbacks(examples: Path) -> None:
    untyped = ("--allow-untyped-defs", "--allow-incomplete-defs", "--allow-untyped-calls")  # the short form
    command = [sys.executable, "-m", "mypy", "--strict", *untyped, "--cache-dir", ".cache", "--no-incremental"]
    check([*command, *sorted(path.name for path in examples.glob("*.py"))], examples)


def test_examples_pass_pyright(examples: Path) -> None:
    settings = {"include": ["."], "typeCheckingMode": "standard", "extraPaths": [str(ROOT / "src")]}
    (examples / "pyrightconfig.json").write_text(json.dumps(settings))
    check([sys.executable, "-m", "basedpyright", "--level", "error", "--pythonpath", sys.executable], examples)


def check(command: list[str], examples: Path) -> None:
    ended = subprocess.run(
        command,
        cwd=examples,
        env={"PATH": str(Path(sys.executable).parent), "MYPYPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
