"""phasebus works with the oldest version of each library that its package admits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.docs import ROOT
from tests.support.packages import build, copy_tree
from tests.support.programs import without
from tests.support.registry import UV, index_options

TEST_LIBRARIES = (
    "hypothesis>=6.170",
    "msgspec>=0.20",
    "pytest>=8.3",
    "pytest-asyncio>=1.0",
    "pytest-timeout>=2.3",
    "trio>=0.31",
)

LEFT_OUT = (
    "tests/unit/initializer/serving/test_serving_middleware.py",  # routes by path: plain Starlette has them from 1.7 on
    *(  # the same with every version of any library
        "tests/unit/bus/test_bus_memory.py",
        "tests/unit/telemetry/test_analysis_any_journal.py",
        "tests/unit/telemetry/test_forecast.py",
        "tests/unit/telemetry/test_redaction_linear.py",
        "tests/unit/test_packaging.py",
        "tests/unit/test_release.py",
    ),
)


@pytest.mark.timeout(1200)
def test_the_unit_tests_pass_with_the_lowest_versions(tmp_path: Path) -> None:
    (wheel,) = build(copy_tree(tmp_path / "tree"), tmp_path / "built").glob("*.whl")
    environment = tmp_path / "environment"
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, environment], check=True)
    python = str(environment / "bin" / "python")
    install = [UV, "pip", "install", "--quiet", *index_options(), "--python", python]
    requirements = ["-r", str(ROOT / "pyproject.toml"), "--extra", "ray"]  # those of a wheel are not direct to uv
    for arguments in (["--resolution", "lowest-direct", *requirements, *TEST_LIBRARIES], ["--no-deps", str(wheel)]):
        installed = subprocess.run([*install, *arguments], capture_output=True, text=True, check=False, timeout=600)
        if "error sending request" in installed.stderr:
            without(f"the registry cannot be reached: {installed.stderr}")
        assert installed.returncode == 0, installed.stderr
    ignored = [f"--ignore={path}" for path in LEFT_OUT]
    ended = subprocess.run(
        [
            python,
            "-m",
            "pytest",
            "-q",
            "--tb=short",
            "-p",
            "no:cacheprovider",
            "--hypothesis-profile=few examples",
            *ignored,
            "tests/unit",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-6000:]
    assert " passed" in ended.stdout
