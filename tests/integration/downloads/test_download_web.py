"""``https://`` against a real nginx."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from phasebus.initializer import DownloadError, DownloadStarted
from phasebus.initializer.downloads import fetch
from tests.support.downloads import QUICK, noise, safetensors, tree, watched
from tests.support.nginx import Nginx, nginx

pytestmark = pytest.mark.anyio

FILES = {"config.json": b"{}", "model.safetensors": safetensors(500_000), "nested/with space.txt": noise(10_000)}


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nginx]:
    monkeypatch.setenv("PHASEBUS_CACHE_DIR", str(tmp_path / "cache"))
    with nginx(tmp_path / "nginx") as running:
        for name, content in FILES.items():
            (running.root / "tiny" / name).parent.mkdir(parents=True, exist_ok=True)
            (running.root / "tiny" / name).write_bytes(content)
        yield running


def publish(folder: Path) -> None:
    """Do what ``sha256sum`` does."""
    lines = [f"{hashlib.sha256(content).hexdigest()}  ./{name}\n" for name, content in FILES.items()]
    (folder / "SHA256SUMS").write_text("".join(lines))


async def test_folder_with_sums_is_downloaded_and_verified(web: Nginx) -> None:
    publish(web.root / "tiny")
    async with watched() as seen:
        result = await fetch(seen.bus, f"{web.url}/tiny/", settings=QUICK)
        again = await fetch(seen.bus, f"{web.url}/tiny/SHA256SUMS", settings=QUICK)
    assert result is not None
    assert again is not None
    assert tree(result.path) == FILES
    assert (again.path, again.cache_hits) == (result.path, 3)
    assert {each.attributes["source"] for each in seen.of(DownloadStarted)} == {"https"}


async def test_folder_without_sums_is_an_error_with_a_remedy(web: Nginx) -> None:
    async with watched() as seen:
        with pytest.raises(DownloadError, match="sha256sum"):
            await fetch(seen.bus, f"{web.url}/tiny/", settings=QUICK)


async def test_file_with_another_sum_is_an_error(web: Nginx) -> None:
    publish(web.root / "tiny")
    (web.root / "tiny" / "model.safetensors").write_bytes(safetensors(500_000, 1))
    async with watched() as seen:
        with pytest.raises(DownloadError, match=r"model.safetensors of .* its sha256 is [0-9a-f]{64}, expected"):
            await fetch(seen.bus, f"{web.url}/tiny/", settings=QUICK)


async def test_query_and_password_of_an_address_appear_nowhere(web: Nginx) -> None:
    address = web.url.replace("http://", "http://user:hunter2@") + "/tiny/model.safetensors?X-Amz-Signature=c0ffee99"
    async with watched() as seen:
        result = await fetch(seen.bus, address, settings=QUICK)
        with pytest.raises(DownloadError) as raised:
            await fetch(seen.bus, address.replace("model", "other"), settings=QUICK)
    assert result is not None
    assert result.path.name == "model.safetensors"
    assert result.path.read_bytes() == FILES["model.safetensors"]
    names = " ".join(str(each) for each in result.path.parent.parent.rglob("*"))
    kept = " ".join(each.read_text() for each in result.path.parent.rglob("*.jsonl"))
    shown = "".join(map(repr, seen.events)) + repr(raised.value) + names + kept
    assert "hunter2" not in shown
    assert "c0ffee99" not in shown


async def test_file_changed_on_the_server_is_fetched_again(web: Nginx) -> None:
    address = f"{web.url}/tiny/config.json"
    async with watched() as seen:
        await fetch(seen.bus, address, settings=QUICK)
        (web.root / "tiny" / "config.json").write_bytes(b'{"changed": 1}')
        result = await fetch(seen.bus, address, settings=QUICK)
    assert result is not None
    assert result.path.read_bytes() == b'{"changed": 1}'
