"""Finding the private parts of a library in its sources."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from phasebus.initializer.ray.versions import FIRST_SERIES, SEAMS
from phasebus.initializer.seams import Seam, missing_from, parsed_source

SOURCE = """
from elsewhere import imported

class Owner:
    declared: int
    assigned = 1

    def __init__(self, other):
        self.set_by_a_method = other
        self.annotated: int = 1
        other.set_on_another = 1
        print(self.only_read)

    async def method(self): ...

class Other:
    def __init__(self):
        self.set_by_another_class = 1

try:
    class Guarded: ...
except ImportError: ...
"""


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("imported", True),
        ("Owner", True),
        ("Owner.declared", True),
        ("Owner.assigned", True),
        ("Owner.method", True),
        ("Owner.set_by_a_method", True),
        ("Owner.annotated", True),
        ("Owner.set_on_another", False),
        ("Owner.only_read", False),
        ("Owner.set_by_another_class", False),
        ("Guarded", True),
        ("Missing", False),
    ],
)
def test_a_seam_is_found_in_the_source_of_its_module(tmp_path: Path, path: str, *, found: bool) -> None:
    (tmp_path / "part.py").write_text(SOURCE)
    seam = Seam("library.part", path, "a purpose")
    assert missing_from([seam], "library", tmp_path) == ([] if found else [seam])


def test_a_seam_that_an_older_version_has_in_another_module_is_not_missing(tmp_path: Path) -> None:
    (tmp_path / "old.py").write_text(SOURCE)
    seams = [Seam("library.new", path, "nothing", ("library.older", "library.old")) for path in ("Owner", "absent")]
    assert missing_from(seams, "library", tmp_path) == seams[1:]


def test_a_seam_of_another_library_is_looked_up_where_that_is_installed(tmp_path: Path) -> None:
    there, absent = Seam("uvicorn.server", "Server.startup", "a"), Seam("uvicorn.server", "Server.missing", "b")
    unknown = Seam("not_installed.module", "Name", "c")
    assert missing_from([there, absent, unknown], "library", tmp_path) == [absent, unknown]


def test_each_part_of_ray_is_listed_once_and_a_later_series_names_one_of_them() -> None:
    assert len({(seam.module, seam.path) for seam in SEAMS}) == len(SEAMS)
    assert FIRST_SERIES.keys() <= {seam.path for seam in SEAMS}


def test_source_is_parsed_although_another_thread_disturbs_the_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    parse, answers = ast.parse, iter([SystemError("AST constructor recursion depth mismatch")])

    def disturbed(source: str) -> ast.Module:
        for error in answers:
            raise error
        return parse(source)

    monkeypatch.setattr(ast, "parse", disturbed)
    assert len(parsed_source("a = 1").body) == 1
