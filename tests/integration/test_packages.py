"""What is built is whole: the wheel, the sdist, and the wheel built from the sdist."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from tests.support.docs import ROOT

ROOMS = ("bus", "telemetry", "observers", "initializer")
DATA = (".py", ".typed", ".html", ".js", ".css", ".svg")


def test_the_wheel_and_the_wheel_of_the_sdist_hold_every_file_of_every_room(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in (*ROOMS, "src", "pyproject.toml", "README.md", "LICENSE"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(
                source, tree / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
            )
        else:
            shutil.copy(source, tree / name)
    expected = {"phasebus/__init__.py", "phasebus/py.typed", "phasebus/vllm_plugin.py"} | {
        f"phasebus/{path.relative_to(tree)}"
        for room in ROOMS
        for path in (tree / room).rglob("*")
        if path.suffix in DATA
    }
    built = build(tree, tmp_path / "built")
    (sdist,) = built.glob("*.tar.gz")
    (wheel,) = built.glob("*.whl")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    (again,) = build(unpacked, tmp_path / "again").glob("*.whl")
    for made in (wheel, again):
        assert expected - set(zipfile.ZipFile(made).namelist()) == set()


def build(tree: Path, destination: Path) -> Path:
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
