"""Models that are in a cache already: used offline, with the hub away, and where the cache cannot be written."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants, snapshot_download

from phasebus.initializer import DownloadError, DownloadFinished, FileFinished, ListingFailed, ListingFinished
from phasebus.initializer.downloads import fetch
from tests.support.downloads import QUICK, noise, safetensors, tree, watched
from tests.support.hub_server import HubServer, Repository
from tests.support.programs import without

pytestmark = pytest.mark.anyio

FILES = {"config.json": b"{}", "tokenizer.json": noise(9_000, 1), "model.safetensors": safetensors(300_000)}


def everything(folder: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of change of all that is in a folder."""
    return {
        str(each): (each.lstat().st_size, each.lstat().st_mtime_ns)
        for each in folder.rglob("*")
        if not each.name.startswith(".agent")  # huggingface_hub's own
    }


@pytest.fixture
def cached(hub: HubServer, request: pytest.FixtureRequest) -> Path:
    """The snapshot of org/name in the cache, downloaded by huggingface_hub."""
    hub.repositories["org/name"] = Repository({**FILES})
    return Path(snapshot_download("org/name", endpoint=hub.url))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")


@pytest.mark.parametrize("condition", ["offline", "away"])
@pytest.mark.parametrize("model", ["org/name", "hf://org/name@main", f"hf://org/name@{'c0ffee' * 6}beef"])
async def test_cached_snapshot_is_used_without_the_hub(
    condition: str, model: str, hub: HubServer, cached: Path, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue(condition)
    hub.requests.clear()
    before = everything(cached)
    async with watched() as seen:
        result = await fetch(seen.bus, model, settings=QUICK)
    assert result is not None
    assert (result.path, result.cache_hits, result.fetched) == (cached, 3, 0)
    assert seen.of(DownloadFinished)[0].attributes["source"] == "hf"
    assert not hub.requests
    assert everything(cached) == before


async def test_unchanged_files_of_another_commit_are_not_downloaded_again(hub: HubServer, cached: Path) -> None:
    repository = hub.repositories["org/name"]
    repository.files["config.json"], repository.commit = b'{"a": 1}', "decade" * 6 + "beef"
    hub.requests.clear()
    async with watched() as seen:
        result = await fetch(seen.bus, "org/name", settings=QUICK)
    assert result is not None
    assert (result.path.name, result.cache_hits, result.fetched) == (repository.commit, 2, 8)
    assert tree(result.path) == repository.files
    assert [each.path.rpartition("/")[2] for each in hub.requests if "/api/" not in each.path] == ["config.json"]
    assert (cached / "config.json").read_bytes() == b"{}"


async def test_busy_hub_is_no_reason_to_wait_for_a_cached_snapshot(hub: HubServer, cached: Path) -> None:
    hub.answers["/api/models/org/name/revision/main"] = [(503, {}, b"")]
    hub.requests.clear()
    async with watched() as seen:
        result = await fetch(seen.bus, "org/name", settings=QUICK)
    assert result is not None
    assert result.path == cached
    assert len(hub.requests) == 1


async def test_snapshot_that_lacks_a_file_of_ours_is_not_used(hub: HubServer, request: pytest.FixtureRequest) -> None:
    hub.repositories["org/name"] = Repository(FILES)
    async with watched() as seen:
        result = await fetch(seen.bus, "org/name", settings=QUICK)
        assert result is not None
        (result.path / "tokenizer.json").unlink()
        request.getfixturevalue("offline")
        with pytest.raises(DownloadError, match=r"is not in the cache .*HF_HUB_OFFLINE is set"):
            await fetch(seen.bus, "org/name", settings=QUICK)


async def test_access_that_is_denied_is_not_replaced_by_the_cache(hub: HubServer, cached: Path) -> None:
    hub.repositories["org/name"].gated = True
    async with watched() as seen:
        with pytest.raises(DownloadError, match="gated"):
            await fetch(seen.bus, "org/name", settings=QUICK)


@pytest.mark.usefixtures("offline")
async def test_missing_snapshot_is_an_error_offline(hub: HubServer) -> None:
    async with watched() as seen:
        with pytest.raises(DownloadError, match=r"is not in the cache .*HF_HUB_OFFLINE is set; unset it, or fill"):
            await fetch(seen.bus, "org/name", settings=QUICK)


async def test_cached_snapshot_is_copied_to_a_destination(
    cached: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue("offline")
    async with watched() as seen:
        result = await fetch(seen.bus, "org/name", destination=tmp_path / "there", settings=QUICK)
    assert result is not None
    assert result.path == tmp_path / "there"
    assert tree(tmp_path / "there") == FILES


async def test_earlier_download_in_a_destination_is_used_without_the_hub(
    hub: HubServer, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    hub.repositories["org/name"] = Repository(FILES)
    async with watched() as seen:
        await fetch(seen.bus, "org/name", destination=tmp_path / "there", settings=QUICK)
        request.getfixturevalue("away")
        result = await fetch(seen.bus, "org/name", destination=tmp_path / "there", settings=QUICK)
        assert result is not None
        assert (result.path, result.fetched) == (tmp_path / "there", 0)
        assert [each.attributes.get("in_place") for each in seen.of(ListingFinished)] == [None, True]
        (tmp_path / "there" / "config.json").unlink()
        with pytest.raises(DownloadError, match=r"cannot be listed: .*lacks 'config.json' of an earlier download"):
            await fetch(seen.bus, "org/name", destination=tmp_path / "there", settings=QUICK)
        assert len(seen.of(ListingFailed)) == 1


async def test_complete_download_is_found_without_writing(hub: HubServer) -> None:
    hub.repositories["org/name"] = Repository(FILES)
    async with watched() as seen:
        result = await fetch(seen.bus, "org/name", settings=QUICK)
        assert result is not None
        before = everything(result.path.parent.parent)
        await fetch(seen.bus, "org/name", settings=QUICK)
    assert everything(result.path.parent.parent) == before
    assert [each.attributes["outcome"] for each in seen.of(FileFinished)[-3:]] == ["cache_hit"] * 3


@pytest.fixture
def read_only(cached: Path, tmp_path: Path) -> Iterator[Path]:
    """The cache, mounted read-only."""
    cache = Path(constants.HF_HUB_CACHE)
    mounted = subprocess.run(["mount", "--bind", "-o", "ro", str(cache), str(cache)], capture_output=True, check=False)
    remounted = subprocess.run(
        ["mount", "-o", "remount,bind,ro", str(cache)], capture_output=True, text=True, check=False
    )
    if mounted.returncode or remounted.returncode:
        without(f"a folder cannot be mounted read-only here, which takes root: {remounted.stderr.strip()}")
    yield cached
    subprocess.run(["umount", "-l", str(cache)], check=True)


async def test_complete_read_only_cache_is_verified_once_and_used(hub: HubServer, read_only: Path) -> None:
    with pytest.raises(OSError, match=r"[Rr]ead-only"):
        (read_only / "probe").touch()
    hub.requests.clear()
    for _ in range(2):
        async with watched() as seen:
            result = await fetch(seen.bus, "org/name", settings=QUICK)
        assert result is not None
        assert (result.path, result.cache_hits, result.fetched) == (read_only, 3, 0)
    assert not hub.of("/resolve/")


async def test_read_only_cache_that_lacks_a_file_is_an_error(hub: HubServer, read_only: Path) -> None:
    hub.repositories["org/name"].files["more.json"] = b"{}"
    async with watched() as seen:
        with pytest.raises(DownloadError, match=r"more.json is missing or outdated in .*, which cannot be written"):
            await fetch(seen.bus, "org/name", settings=QUICK)


async def test_modelscope_is_refused_and_not_ignored(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories["org/name"] = Repository(FILES)
    monkeypatch.setenv("VLLM_USE_MODELSCOPE", "True")
    async with watched() as seen:
        with pytest.raises(DownloadError, match="VLLM_USE_MODELSCOPE is set"):
            await fetch(seen.bus, "org/name", settings=QUICK)
        assert not hub.requests
        assert await fetch(seen.bus, "org/name", "NONE", settings=QUICK) is None
        assert await fetch(seen.bus, "hf://org/name", settings=QUICK) is not None


async def test_index_that_names_a_missing_shard_is_an_error(hub: HubServer) -> None:
    index = b'{"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}'
    hub.repositories["org/name"] = Repository({**FILES, "model.safetensors.index.json": index})
    async with watched() as seen:
        with pytest.raises(DownloadError, match=r"index.json names model-2.safetensors, and it is not there"):
            await fetch(seen.bus, "org/name", settings=QUICK)
        assert await fetch(seen.bus, "org/name", "TOKENIZER_ONLY", settings=QUICK) is not None


def test_importing_downloads_imports_no_client() -> None:
    code = "import sys, phasebus.initializer.downloads; print({'huggingface_hub', 'obstore', 'httpx'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    assert done.stdout.strip() == "set()"


async def test_folder_that_cannot_be_locked_is_not_written(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the lock belongs to another user who shares the folder."""

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    hub.repositories["org/name"] = Repository({**FILES})
    there = tmp_path / "there"
    async with watched() as seen:
        await fetch(seen.bus, "org/name", destination=there, settings=QUICK)
        (there / ".phasebus" / "record.jsonl").unlink()
        monkeypatch.setattr("filelock.FileLock.acquire", denied)
        assert await fetch(seen.bus, "org/name", destination=there, settings=QUICK) is not None
        (there / "config.json").unlink()
        with pytest.raises(DownloadError, match=r"config.json is missing or outdated .*: it cannot be locked"):
            await fetch(seen.bus, "org/name", destination=there, settings=QUICK)
    assert not (there / "config.json").exists()
