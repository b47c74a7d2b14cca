"""The real clients of three object stores against real servers."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from phasebus.initializer import DownloadError, DownloadFinished, FileFinished
from phasebus.initializer.downloads import fetch
from tests.support.downloads import QUICK, noise, safetensors, tree, watched
from tests.support.fault_proxy import Fault, FaultProxy, fault_proxy
from tests.support.object_stores import ObjectStore

pytestmark = pytest.mark.anyio

FILES = {"config.json": b"{}", "model.safetensors": safetensors(2_000_000), "nested/tokenizer.json": noise(30_000)}


@pytest.fixture
def bucket(store: ObjectStore) -> str:
    """The address of a bucket with a model, and one whose name begins alike."""
    name = f"bucket{secrets.token_hex(4)}"
    store.put(name, {f"models/tiny/{file}": content for file, content in FILES.items()} | {"models/tiny-2/x": b"other"})
    return f"{store.kind}://{name}"


@pytest.fixture
def breaking(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A proxy in front of the server that ends every connection before a large object is through.

    In order: after an RST, what the client had not read yet would be lost, more of it the busier the machine.
    """
    with fault_proxy(store.port, lambda _: Fault("truncate", 1_300_000)) as proxy:
        for name, value in store.environment(proxy.port).items():
            monkeypatch.setenv(name, value)
        yield proxy


async def test_what_is_below_a_prefix_arrives(store: ObjectStore, bucket: str) -> None:
    async with watched() as seen:
        result = await fetch(seen.bus, f"{bucket}/models/tiny/", settings=QUICK)
    assert result is not None
    assert tree(result.path) == FILES
    [finished] = seen.of(DownloadFinished)
    assert (finished.attributes["source"], finished.attributes["files"]) == (store.kind, 3)


async def test_a_second_start_fetches_nothing(bucket: str) -> None:
    async with watched() as seen:
        await fetch(seen.bus, f"{bucket}/models/tiny", settings=QUICK)
        result = await fetch(seen.bus, f"{bucket}/models/tiny", settings=QUICK)
    assert result is not None
    assert (result.cache_hits, result.fetched) == (3, 0)


async def test_an_object_that_was_replaced_is_fetched_again(bucket: str, store: ObjectStore) -> None:
    async with watched() as seen:
        await fetch(seen.bus, f"{bucket}/models/tiny", settings=QUICK)
        store.put(urlsplit(bucket).netloc, {"models/tiny/config.json": b"[]"})
        result = await fetch(seen.bus, f"{bucket}/models/tiny", settings=QUICK)
    assert result is not None
    assert (result.cache_hits, result.fetched) == (2, 2)
    assert tree(result.path) == {**FILES, "config.json": b"[]"}


async def test_one_object_may_be_named(bucket: str, tmp_path: Path) -> None:
    async with watched() as seen:
        result = await fetch(
            seen.bus, f"{bucket}/models/tiny/config.json", destination=tmp_path / "there", settings=QUICK
        )
    assert result is not None
    assert result.path == tmp_path / "there" / "config.json"
    assert tree(tmp_path / "there") == {"config.json": b"{}"}


async def test_a_broken_connection_costs_a_retry_and_not_the_bytes_before(
    bucket: str, breaking: FaultProxy, tmp_path: Path
) -> None:
    async with watched() as seen:
        result = await fetch(seen.bus, f"{bucket}/models/tiny", destination=tmp_path / "there", settings=QUICK)
    assert result is not None
    assert tree(tmp_path / "there") == FILES
    assert result.retries >= 1
    assert breaking.passed < 2.2 * sum(map(len, FILES.values()))
    assert sum(int(each.attributes["retries"]) for each in seen.of(FileFinished)) <= result.retries


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("{bucket}/models/none", "there is nothing at {bucket}/models/none"),
        ("{kind}://no-such-bucket/models", "there is nothing at"),
        ("{kind}://", "followed by no bucket"),
    ],
)
async def test_what_is_not_there_is_said(store: ObjectStore, bucket: str, address: str, says: str) -> None:
    async with watched() as seen:
        with pytest.raises(DownloadError, match=says.format(bucket=bucket)):
            await fetch(seen.bus, address.format(bucket=bucket, kind=store.kind), settings=QUICK)


async def test_credentials_show_nowhere(store: ObjectStore, bucket: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with watched() as seen:
        await fetch(seen.bus, f"{bucket}/models/tiny", settings=QUICK)
        with pytest.raises(DownloadError) as raised:
            await fetch(seen.bus, f"{bucket}/nowhere", settings=QUICK)
    shown = caplog.text + "".join(map(repr, seen.events)) + repr(raised.value)
    assert not [each for each in store.secrets if each in shown]
