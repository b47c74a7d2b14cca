"""phasebus, built as a user gets it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.docs import ROOT

ROOMS = ("bus", "telemetry", "observers", "initializer")


def copy_tree(destination: Path) -> Path:
    """Return `destination` with a copy of what packages are built from: a build writes into the tree it builds."""
    destination.mkdir()
    for name in (*ROOMS, "src", "pyproject.toml", "README.md", "LICENSE"):
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(source, destination / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(source, destination / name)
    return destination


def build(tree: Path, destination: Path) -> Path:
    """Return `destination` with an sdist of `tree`, and the wheel that is built from the sdist."""
    command: list[str | Path] = [
        Path(sys.prefix) / "bin" / "uv",
        "build",
        "--sdist",
        "--wheel",
        "--no-build-isolation",
        "--offline",
        "--out-dir",
        destination,
    ]
    ended = subprocess.run([*command, tree], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return destination
