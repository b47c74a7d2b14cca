"""The bus works with every other version of Python that is at hand, with anyio as its only dependency."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import DEVNULL

import pytest

from tests.support.docs import ROOT
from tests.support.programs import without
from tests.support.registry import UV, index_options

MINORS = (11, 12, 13, 14)
TEST_LIBRARIES = ("hypothesis", "msgspec", "pydantic", "pytest", "pytest-timeout", "trio")
LEFT_OUT = ("test_bus_memory.py",)  # slow, and the same on every Python


def pythons() -> list[Path]:
    """Return an interpreter for each minor version but the running one, of those on the PATH and pyenv's."""
    found = []
    for minor in MINORS:
        name = f"python3.{minor}"
        candidates = sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/{name}"))
        if (on_path := shutil.which(name)) is not None:
            candidates.append(Path(on_path))
        works = (
            c
            for c in reversed(candidates)
            if subprocess.run([c, "-c", ""], stderr=DEVNULL, check=False).returncode == 0
        )
        if minor != sys.version_info.minor and (python := next(works, None)) is not None:
            found.append(python)
    return found


def run_tests_of_the_bus(python: Path, environment: Path) -> str:
    """Run the tests in a new environment, and return the last lines of what pytest printed; '' if all passed."""
    subprocess.run([UV, "venv", "--quiet", "--python", python, environment], check=True)
    own = str(environment / "bin" / "python")
    constraints = ROOT / "deploy" / "environment" / "constraints.txt"
    install = [UV, "pip", "install", "--quiet", *index_options(), "--python", own, "--constraint", str(constraints)]
    installed = subprocess.run(
        [*install, "anyio", *TEST_LIBRARIES], capture_output=True, text=True, check=False, timeout=300
    )
    if installed.returncode != 0:
        without(f"{installed.stderr.strip()[-300:]}")
    imported = environment.with_suffix(".path")  # without the metadata of an installation, and so of its entry points
    imported.mkdir()
    (imported / "phasebus").symlink_to(ROOT / "src" / "phasebus")
    ignored = [f"--ignore=tests/unit/bus/{name}" for name in LEFT_OUT]
    pytest_options = [
        "-q",
        "--tb=short",
        "-p",
        "no:cacheprovider",
        "-p",
        "phasebus.bus.pytest_plugin",
        "--hypothesis-profile=few examples",
    ]
    ended = subprocess.run(
        [own, "-m", "pytest", *pytest_options, *ignored, "tests/unit/bus"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(imported)},
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if ended.returncode == 0 and " passed" in ended.stdout else ended.stdout[-4000:] + ended.stderr[-2000:]


@pytest.mark.timeout(900)
def test_the_tests_of_the_bus_pass_with_the_other_pythons(tmp_path: Path) -> None:
    found = pythons()
    if not found:
        print("there is no other Python on this machine: nothing was run")  # no skip, as none is needed
    with ThreadPoolExecutor() as threads:
        ends = threads.map(run_tests_of_the_bus, found, [tmp_path / python.name.replace(".", "-") for python in found])
        failures = {str(python): end for python, end in zip(found, ends, strict=True) if end}
    assert not failures, "\n".join(f"{python}:\n{end}" for python, end in failures.items())
