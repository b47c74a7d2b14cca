from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.two_nodes import SharedTwoNodes, TwoNodes

_shared = SharedTwoNodes(Path(__file__).parent)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The bus is tested on trio elsewhere; here every test takes seconds."""
    return "asyncio"


@pytest.fixture(scope="module")
def nodes() -> TwoNodes:
    return _shared.started()


@pytest.hookimpl(wrapper=True)  # type: ignore[untyped-decorator]
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """End the nodes after the last test of this folder."""
    try:
        yield
    finally:
        _shared.end_before(nextitem)


@pytest.fixture
def model(tmp_path: Path) -> str:
    """The folder of a model without weights, which can be fetched."""
    (tmp_path / "config.json").write_text("{}")
    return str(tmp_path)


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHASEBUS_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("TRACEPARENT", raising=False)
