from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.two_nodes import TwoNodes, two_nodes


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The bus is tested on trio elsewhere; here every test takes seconds."""
    return "asyncio"


@pytest.fixture(scope="module")
def nodes() -> Iterator[TwoNodes]:
    with two_nodes() as running:
        yield running


@pytest.fixture
def model(tmp_path: Path) -> str:
    """The folder of a model without weights, which can be fetched."""
    (tmp_path / "config.json").write_text("{}")
    return str(tmp_path)


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHASEBUS_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("TRACEPARENT", raising=False)
