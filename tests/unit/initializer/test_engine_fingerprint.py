"""When a fork server that stays has imported something else than a later start would: packages, and edited files."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import pytest

from phasebus.initializer.engines.vllm.inside.forkserver.kept import environment
from phasebus.initializer.engines.vllm.inside.forkserver.kept.fingerprint import fingerprint
from phasebus.initializer.engines.vllm.inside.forkserver.kept.imported_files import ImportedFiles

_LATER_NS = 2**60


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on the path: two packages, a single module and a file of paths."""
    folder = tmp_path / "site-packages"
    for name in ("vllm", "vllm-1.dist-info"):
        (folder / name).mkdir(parents=True)
    for name in ("vllm/__init__.py", "single.py", "paths.pth"):
        (folder / name).write_text("")
    monkeypatch.setattr(sys, "path", [str(folder)])
    return folder


def _touch(path: Path) -> None:
    os.utime(path, ns=(_LATER_NS, _LATER_NS))


@pytest.mark.parametrize(
    "change",
    [
        lambda site: (site / "vllm-1.dist-info").rename(site / "vllm-2.dist-info"),
        lambda site: _touch(site / "vllm-1.dist-info"),  # the same version, installed again
        lambda site: (site / "copied").mkdir(),
        lambda site: (site / "single.py").unlink(),
        lambda site: _touch(site / "single.py"),
        lambda site: _touch(site / "paths.pth"),
    ],
    ids=["upgraded", "installed again", "copied there", "removed", "edited", "paths"],
)
def test_fingerprint_changes_with_what_is_installed(site: Path, change: Callable[[Path], object]) -> None:
    before = fingerprint({})
    change(site)
    assert fingerprint({}) != before


def test_fingerprint_stays_when_python_makes_a_folder_of_bytecode(site: Path) -> None:
    before = fingerprint({})
    (site / "__pycache__").mkdir()
    _touch(site)
    assert fingerprint({}) == before


def test_folder_that_cannot_be_listed_is_no_error(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    assert fingerprint({})


@pytest.mark.parametrize("change", [_touch, Path.unlink], ids=["edited", "removed"])
def test_imported_file_that_was_edited_in_place_is_named(
    site: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], object]
) -> None:
    module = ModuleType("edited")
    module.__file__ = str(site / "vllm" / "__init__.py")
    monkeypatch.setattr(sys, "modules", {"edited": module, "without": ModuleType("without")})
    files = ImportedFiles()
    assert files.changed() is None
    change(Path(module.__file__))
    assert files.changed() == module.__file__


@pytest.mark.parametrize(
    ("read", "names"),
    [
        (lambda variables: variables["A"], {"A"}),
        (lambda variables: variables.get("UNSET"), {"UNSET"}),
        (lambda variables: "A" in variables, {"A"}),
        (os.get_exec_path, {"PATH"}),
        (lambda variables: variables.copy(), set()),
        (lambda variables: {**variables}, set()),
        (lambda variables: [value for name, value in variables.items() if name.startswith("X")], set()),
        (lambda variables: list(variables.values()), set()),
        (lambda variables: (dict(variables)["A"], variables["B"]), {"B"}),
        (lambda variables: [variables.get("UNSET") for _ in variables.items()], {"UNSET"}),
    ],
)
def test_variables_read_by_name_are_recorded_and_copied_ones_are_not(
    monkeypatch: pytest.MonkeyPatch, read: Callable[[Mapping[str, str]], object], names: set[str]
) -> None:
    monkeypatch.setattr(environment, "_read", set())
    monkeypatch.setattr(environment, "_copied", deque())
    coding = [getattr(os.environ, name) for name in ("encodekey", "decodekey", "encodevalue", "decodevalue")]
    read(environment._RecordingEnvironment({b"A": b"1", b"B": b"2", b"C": b"3"}, *coding))
    assert environment._read == names


def test_command_with_the_same_library_folders_has_no_difference(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = "LD_LIBRARY_PATH"
    monkeypatch.setattr(environment, "_read", set())
    monkeypatch.setattr(environment, "_initial", {})
    monkeypatch.setenv(name, "/no/such/folder:")  # set by the imports
    assert environment.differences({name: "/no/such/other:"}) == []
    assert environment.differences({name: str(tmp_path)}) == [name]
    assert environment.set_by_imports({})[name] == "/no/such/folder:"
    assert name not in environment.set_by_imports({name: "/no/such/other:"})
