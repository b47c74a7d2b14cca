"""The packages as `make dist` checks them, and the site as `make docs` builds it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.docs import ROOT
from tests.support.release import release

TOOLS = ROOT / ".venv-docs" / "bin"


@pytest.fixture(autouse=True)
def tools() -> None:
    if not (TOOLS / "mkdocs").exists():
        reason = "deploy/environment/servers installs the tools of the site and of a release"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


def test_wheel_in_an_empty_environment_starts_a_node(tmp_path: Path) -> None:
    assert [file.suffix for file in release(tmp_path / "dist")] == [".whl", ".gz"]


def test_site_is_built_without_warnings(tmp_path: Path) -> None:
    command: list[str | Path] = [TOOLS / "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert ended.returncode == 0, ended.stderr
    assert "WARNING" not in ended.stderr
    page = (tmp_path / "site" / "quickstart" / "index.html").read_text()
    assert "guides/jaeger" in page
