from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from tests.support.hub_server import HubServer, hub_server
from tests.support.object_stores import S3, Azure, Google, ObjectStore, azurite, moto_server


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub that huggingface_hub uses, with a cache for this test only."""
    with hub_server() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setenv("PHASEBUS_CACHE_DIR", str(tmp_path / "cache"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield running


@pytest.fixture(scope="session")
def moto_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with moto_server(tmp_path_factory.mktemp("moto")) as port:
        yield port


@pytest.fixture(scope="session")
def azurite_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with azurite(tmp_path_factory.mktemp("azurite")) as port:
        yield port


@pytest.fixture(params=["s3", "gs", "az"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """An object store, and the environment that configures its clients."""
    if request.param == "az":
        running: ObjectStore = Azure(request.getfixturevalue("azurite_port"))
    elif request.param == "gs":
        running = Google(request.getfixturevalue("moto_port"), tmp_path)
    else:
        running = S3(request.getfixturevalue("moto_port"))
    for name, value in running.environment(running.port).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PHASEBUS_CACHE_DIR", str(tmp_path / "cache"))
    return running
