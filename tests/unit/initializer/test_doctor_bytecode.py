"""What doctor prints of libraries that are not compiled."""

from __future__ import annotations

import os
import py_compile
import sys
from pathlib import Path

import pytest

from phasebus.initializer.cli.doctor.bytecode import find_bytecode
from phasebus.initializer.cli.doctor.findings import Finding

LIBRARIES = ("large_library_a", "large_library_b")


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two libraries that are not compiled, in a folder from which they can be imported."""
    monkeypatch.setattr(sys, "pycache_prefix", None)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.syspath_prepend(tmp_path)
    for name in LIBRARIES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('imported')")
    return [tmp_path / name / "__init__.py" for name in LIBRARIES]


def found() -> Finding:
    (finding,) = find_bytecode(("no_such_library", *LIBRARIES))
    assert (finding.topic, finding.name) == ("versions", "bytecode")
    return finding


def test_compiled_libraries_are_nothing_to_change(sources: list[Path]) -> None:
    for source in sources:
        py_compile.compile(str(source))
    assert (found().value, found().level) == ("libraries are compiled", "ok")


def test_libraries_that_are_not_compiled_are_a_note_with_the_command(sources: list[Path]) -> None:
    py_compile.compile(str(sources[0]))
    finding = found()
    assert (finding.level, finding.value.partition(":")[0]) == ("note", "large_library_b not compiled")
    assert "the next start compiles" in finding.value
    assert finding.advice.endswith(f"python -m compileall -q -j 0 {sources[0].parent.parent}")


def test_bytecode_of_sources_whose_times_have_changed_is_a_note_with_the_mode_that_ignores_them(
    sources: list[Path],
) -> None:
    for source in sources:
        py_compile.compile(str(source))
    os.utime(sources[0], (1_000_000_000, 1_000_000_000))
    finding = found()
    assert finding.value.startswith("large_library_a have bytecode of other sources")
    assert "--invalidation-mode unchecked-hash" in finding.advice
    py_compile.compile(str(sources[0]), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    os.utime(sources[0])
    assert found().level == "ok"


@pytest.mark.usefixtures("sources")
def test_each_process_compiles_where_nothing_may_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    assert "the folder is not writable, so each process compiles" in found().value
    assert found().advice.endswith("; or set PYTHONPYCACHEPREFIX to a folder on a volume")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert "PYTHONDONTWRITEBYTECODE is set, so each process compiles" in found().value


def test_no_library_is_no_finding() -> None:
    assert list(find_bytecode(("no_such_library",))) == []
