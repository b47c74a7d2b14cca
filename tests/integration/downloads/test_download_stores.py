"""The real clients of three object stores against real servers."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
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
    """The address of a bucket with a model, and another model whose name begins with the same letters."""
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


async def test_objects_below_a_prefix_arrive(store: ObjectStore, bucket: str) -> None:
    async with watched() as seen:
        result = await fetch(seen.bus, f"{bucket}/models/tiny/", settings=QUICK)
    assert result is not None
    assert tree(result.path) == FILES
    [finished] = seen.of(DownloadFinished)
    assert (finished.attributes["source"], finished.attributes["files"]) == (store.kind, 3)


async def test_second_start_fetches_nothing(bucket: str) -> None:
    async with watched() as seen:
        await fetch(seen.bus, f"{bucket}/models/tiny", settings=QUICK)
        result = await fetch(seen.bus, f"{bucket}/models/tiny", settings=QUICK)
    assert result is not None
    assert (result.cache_hits, result.fetched) == (3, 0)


async def test_replaced_object_is_fetched_again(bucket: str, store: ObjectStore) -> None:
    async with watched() as seen:
        await fetch(seen.bus, f"{bucket}/models/tiny", settings=QUICK)
        store.put(urlsplit(bucket).netloc, {"models/tiny/config.json": b"[]"})
        result = await fetch(seen.bus, f"{bucket}/models/tiny", settings=QUICK)
    assert result is not None
    assert (result.cache_hits, result.fetched) == (2, 2)
    assert tree(result.path) == {**FILES, "config.json": b"[]"}


async def test_one_object_is_downloaded_by_its_key(bucket: str, tmp_path: Path) -> None:
    async with watched() as seen:
        result = await fetch(
            seen.bus, f"{bucket}/models/tiny/config.json", destination=tmp_path / "there", settings=QUICK
        )
    assert result is not None
    assert result.path == tmp_path / "there" / "config.json"
    assert tree(tmp_path / "there") == {"config.json": b"{}"}


async def test_broken_connection_costs_a_retry_and_not_the_bytes_before(
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
    ("address", "message"),
    [
        ("{bucket}/models/none", "there is nothing at {bucket}/models/none"),
        ("{kind}://no-such-bucket/models", "there is nothing at"),
        ("{kind}://", "followed by no bucket"),
    ],
)
async def test_missing_bucket_or_prefix_is_an_error(
    store: ObjectStore, bucket: str, address: str, message: str
) -> None:
    async with watched() as seen:
        with pytest.raises(DownloadError, match=message.format(bucket=bucket)):
            await fetch(seen.bus, address.format(bucket=bucket, kind=store.kind), settings=QUICK)


async def test_credentials_appear_nowhere(store: ObjectStore, bucket: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with watched() as seen:
        await fetch(seen.bus, f"{bucket}/models/tiny", settings=QUICK)
        with pytest.raises(DownloadError) as raised:
            await fetch(seen.bus, f"{bucket}/nowhere", settings=QUICK)
    shown = caplog.text + "".join(map(repr, seen.events)) + repr(raised.value)
    assert not [each for each in store.secrets if each in shown]


@pytest.mark.parametrize("name", ["run#3", "what?", "100%25", "a b", "%41", "ü"])
async def test_key_means_itself_whatever_characters_it_has(store: ObjectStore, name: str, tmp_path: Path) -> None:
    bucket = f"bucket{secrets.token_hex(4)}"
    files = {f"{name}/config.json": b'{"right": 1}', f"{name}/tok{name}.txt": b"1", "run/config.json": b"{}"}
    store.put(bucket, {**files, "what/config.json": b"{}"})
    async with watched() as seen:
        await fetch(seen.bus, f"{store.kind}://{bucket}/{name}", destination=tmp_path / "there", settings=QUICK)
    assert tree(tmp_path / "there") == {"config.json": b'{"right": 1}', f"tok{name}.txt": b"1"}


def put_raw(store: ObjectStore, bucket: str, key: str, content: bytes) -> None:
    """Put an object whose key the store's client would not accept."""
    httpx.put(f"http://127.0.0.1:{store.port}/{bucket}/{key}", content=content, timeout=30).raise_for_status()


@pytest.mark.parametrize("store", ["s3"], indirect=True)
async def test_markers_of_folders_are_no_files(store: ObjectStore, bucket: str, tmp_path: Path) -> None:
    name = urlsplit(bucket).netloc
    for key in ("models/tiny/", "models/tiny/nested/", "models/tiny/logs/"):
        put_raw(store, name, key, b"")
    store.put(name, {"models/tiny/__init__.py": b""})
    async with watched() as seen:
        await fetch(seen.bus, f"{bucket}/models/tiny", destination=tmp_path / "there", settings=QUICK)
    assert tree(tmp_path / "there") == {**FILES, "__init__.py": b""}


@pytest.mark.parametrize("store", ["s3"], indirect=True)
@pytest.mark.parametrize("key", ["models/tiny//stray", "models/tiny/a%5Cb", "models/tiny/%2E%2E/evil"])
async def test_odd_key_is_left_out_and_named_and_the_others_are_fetched(
    store: ObjectStore, bucket: str, key: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put_raw(store, urlsplit(bucket).netloc, key, b"x")
    async with watched() as seen:
        await fetch(seen.bus, f"{bucket}/models/tiny", destination=tmp_path / "there", settings=QUICK)
    assert tree(tmp_path / "there") == FILES
    assert seen.of(DownloadFinished)[0].attributes["skipped"] == 1
    assert "they are skipped" in caplog.text


@pytest.mark.parametrize("address", ["{bucket}/models//tiny", "{bucket}/models/../tiny"])
async def test_key_that_cannot_be_requested_is_an_error(store: ObjectStore, bucket: str, address: str) -> None:
    async with watched() as seen:
        with pytest.raises(DownloadError, match=r"has an empty part, '.' or '..' in its key"):
            await fetch(seen.bus, address.format(bucket=bucket), settings=QUICK)


@pytest.mark.parametrize("store", ["s3"], indirect=True)
async def test_profile_of_amazons_files_is_used(
    store: ObjectStore, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = store.environment(store.port)["AWS_SECRET_ACCESS_KEY"]
    (tmp_path / "credentials").write_text(f"[prod]\naws_access_key_id = AKIA\naws_secret_access_key = {secret}\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "prod")
    async with watched() as seen:
        result = await fetch(seen.bus, f"{bucket}/models/tiny", settings=QUICK)
    assert result is not None
    assert tree(result.path) == FILES
