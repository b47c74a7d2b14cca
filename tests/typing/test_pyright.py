"""pyright agrees with the files of this folder, in strict mode."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PYRIGHT = shutil.which("pyright", path=str(Path(sys.executable).parent)) or shutil.which("pyright")


@pytest.mark.skipif(PYRIGHT is None, reason="pyright is not installed")
def test_pyright_agrees() -> None:
    assert PYRIGHT is not None
    ended = subprocess.run(
        [PYRIGHT, "--outputjson", "--project", HERE.parents[1], "--pythonpath", sys.executable],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    found = json.loads(ended.stdout)
    assert [
        f"{each['file']}:{each['range']['start']['line'] + 1}: {each['message']}"
        for each in found["generalDiagnostics"]
    ] == []
    assert found["summary"]["filesAnalyzed"] >= 1
