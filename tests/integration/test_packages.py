"""What is built is whole: the wheel, the sdist, and the wheel built from the sdist."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

from tests.support.packages import ROOMS, build, copy_tree

DATA = (".py", ".typed", ".html", ".js", ".css", ".svg")


def test_the_wheel_and_the_wheel_of_the_sdist_hold_every_file_of_every_room(tmp_path: Path) -> None:
    tree = copy_tree(tmp_path / "tree")
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
