"""The real servers that tests use, and what happens where one is missing."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parents[2]

_FIRST_PORT, _LAST_PORT = 20_000, 32_000
"""Above those of Ray's workers, and below those that Linux chooses."""

_ports = iter(random.sample(range(_FIRST_PORT, _LAST_PORT), _LAST_PORT - _FIRST_PORT))


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
    """Return a free port of loopback, which this process has not returned before.

    It is none of those that the kernel gives to connections and to port 0: nothing else gets it before the test uses it.
    """
    for port in _ports:
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise RuntimeError("no port is free")
