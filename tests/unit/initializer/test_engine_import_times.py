"""The times of imports: nested as they happened, each package's own, and the longest only."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from phasebus.initializer.engines.vllm.inside.import_times import MOST, ImportTimes

PACKAGES = {
    "outer_package/__init__.py": "import outer_package.part",
    "outer_package/part.py": "import inner_package\nimport inner_package.part",
    "inner_package/__init__.py": "",
    "inner_package/part.py": "",
    "failing_package/__init__.py": "import inner_package\nraise ImportError('x')",
}


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, content in PACKAGES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] in ("outer_package", "inner_package")]:
        del sys.modules[name]


@pytest.mark.usefixtures("packages")
def test_imports_of_other_packages_are_nested_and_counted_once() -> None:
    times = ImportTimes()
    with times.measuring():
        importlib.import_module("outer_package")
    outer, first, second = times.longest()
    assert [each["module"] for each in (outer, first, second)] == [
        "outer_package",
        "inner_package",
        "inner_package.part",
    ]
    assert [each["inside"] for each in (outer, first, second)] == [None, 0, 0]
    assert outer["began_ns"] <= first["began_ns"] <= first["ended_ns"] <= second["began_ns"] <= outer["ended_ns"]
    total = sum(each["seconds"] for each in (outer, first, second))
    assert total == pytest.approx((outer["ended_ns"] - outer["began_ns"]) / 1e9, abs=0.002)  # each is rounded


@pytest.mark.usefixtures("packages")
def test_import_that_fails_is_measured_and_later_imports_are_not() -> None:
    times, before = ImportTimes(), importlib._bootstrap._find_and_load  # type: ignore[attr-defined]
    with pytest.raises(ImportError, match=r"^x$"), times.measuring():
        importlib.import_module("failing_package")
    importlib.import_module("outer_package")
    assert [each["module"] for each in times.longest()] == ["failing_package", "inner_package"]
    assert importlib._bootstrap._find_and_load is before  # type: ignore[attr-defined]


def test_only_the_longest_imports_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(MOST + 3):
        (tmp_path / f"short_package_{number}.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    times = ImportTimes()
    with times.measuring():
        for number in range(MOST + 3):
            importlib.import_module(f"short_package_{number}")
            del sys.modules[f"short_package_{number}"]
    assert len(times.longest()) == MOST
