"""The real servers that tests use, and what happens where one is missing."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parents[2]


def program(name: str, package: str) -> str:
    """Return the path of a program; where it is missing the test is skipped, and in CI it fails."""
    found = shutil.which(name)
    if found is None and (own := ROOT / ".venv-otlp" / "bin" / name).exists():
        found = str(own)
    if found is None:
        without(f"{name} is not installed: `make test` gets it where it may, else install {package}")
    return found


def without(reason: str) -> NoReturn:
    """Skip the test, because this machine lacks what it needs; in CI, where no skip is allowed, fail it."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def free_port() -> int:
    """Return a free port of loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
