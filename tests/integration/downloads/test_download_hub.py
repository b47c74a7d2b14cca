"""The real huggingface_hub against a server that speaks the hub's protocol."""

from __future__ import annotations

import hashlib
import logging
import re
from pathlib import Path

import pytest
from huggingface_hub import snapshot_download

from phasebus.initializer import (
    DownloadError,
    DownloadFinished,
    DownloadProgress,
    DownloadStarted,
    ExtraFile,
    FileFinished,
    FileProgress,
    FileStarted,
)
from phasebus.initializer.downloads import fetch
from tests.support.downloads import QUICK, noise, safetensors, tree, watched
from tests.support.hub_server import SIGNATURE, HubServer, Repository

pytestmark = pytest.mark.anyio

FILES = {
    "config.json": b"{}",
    "tokenizer.json": noise(9_000, 1),
    "tokenizer_config.json": b"{}",
    "model.safetensors": safetensors(300_000),
    "nested/deep/extra.bin": noise(50_000, 2),
}


async def test_model_arrives_and_every_file_is_reported(hub: HubServer) -> None:
    hub.repositories["org/name"] = Repository(FILES)
    async with watched() as seen:
        result = await fetch(seen.bus, "org/name", settings=QUICK)
    assert result is not None
    assert tree(result.path) == FILES
    total = sum(map(len, FILES.values()))
    assert (result.files, result.bytes, result.fetched, result.cache_hits) == (5, total, total, 0)
    assert [type(each) for each in (seen.events[0], seen.events[-1])] == [DownloadStarted, DownloadFinished]
    assert sorted(each.name for each in seen.of(FileStarted)) == sorted(FILES)
    assert {each.name: each.attributes["outcome"] for each in seen.of(FileFinished)} == dict.fromkeys(FILES, "fetched")
    [model] = seen.of(DownloadStarted)
    assert all(each.parent == model.step for each in seen.of(FileStarted))
    [finished] = seen.of(DownloadFinished)
    attributes = finished.attributes
    assert (attributes["source"], attributes["model"], attributes["bytes"], attributes["files"]) == (
        "hf",
        "hf://org/name",
        total,
        5,
    )
    assert attributes["revision"] == hub.repositories["org/name"].commit
    last = seen.of(DownloadProgress)[-1]
    assert (last.done, last.total, last.unit) == (total, total, "By")


async def test_second_start_fetches_nothing(hub: HubServer) -> None:
    hub.repositories["org/name"] = Repository(FILES)
    async with watched() as seen:
        await fetch(seen.bus, "org/name", settings=QUICK)
        sent = hub.sent
        hub.requests.clear()
        result = await fetch(seen.bus, "hf://org/name@main", settings=QUICK)
    assert result is not None
    assert (result.cache_hits, result.fetched) == (5, 0)
    assert not hub.of("/resolve/")
    assert hub.sent - sent < 2_000
    assert [each.attributes["outcome"] for each in seen.of(FileFinished)[-5:]] == ["cache_hit"] * 5


async def test_cache_is_shared_with_huggingface_hub(hub: HubServer) -> None:
    hub.repositories["org/ours"] = Repository(FILES)
    hub.repositories["org/theirs"] = Repository(FILES, commit="b" * 40)
    async with watched() as seen:
        ours = await fetch(seen.bus, "org/ours", settings=QUICK)
        assert ours is not None
        assert snapshot_download("org/ours", local_files_only=True) == str(ours.path)
        theirs = snapshot_download("org/theirs", endpoint=hub.url)
        hub.requests.clear()
        found = await fetch(seen.bus, "org/theirs", settings=QUICK)
    assert found is not None
    assert (str(found.path), found.cache_hits, found.fetched) == (theirs, 5, 0)
    assert not hub.of("/resolve/")


async def test_token_is_sent_to_the_hub_only(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("HF_TOKEN", "hf_verysecretverysecret")
    hub.repositories["org/private"] = Repository(FILES, token="hf_verysecretverysecret")
    async with watched() as seen:
        await fetch(seen.bus, "org/private", settings=QUICK)
    assert all("authorization" in each.headers for each in hub.of("/resolve/"))
    assert hub.of("/delivery/")
    assert all("authorization" not in each.headers for each in hub.of("/delivery/"))
    shown = caplog.text + "".join(map(repr, seen.events))
    assert "verysecret" not in shown
    assert SIGNATURE.partition("=")[2] not in shown


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("org/nothing", "there is no repository 'org/nothing'"),
        ("org/private", "HF_TOKEN"),
        ("org/gated", "accept its terms"),
        ("org/name@v9", "has no revision 'v9'"),
    ],
)
async def test_denied_or_missing_repository_is_an_error_with_a_remedy(hub: HubServer, model: str, message: str) -> None:
    hub.repositories["org/name"] = Repository(FILES)
    hub.repositories["org/private"] = Repository(FILES, token="hf_another")
    hub.repositories["org/gated"] = Repository(FILES, gated=True)
    async with watched() as seen:
        with pytest.raises(DownloadError, match=message):
            await fetch(seen.bus, model, settings=QUICK)
    assert len(hub.of("/api/")) == 1


async def test_busy_hub_is_retried_with_one_warning(hub: HubServer, caplog: pytest.LogCaptureFixture) -> None:
    hub.repositories["org/name"] = Repository({"config.json": b"{}"})
    hub.answers["/api/models/org/name/revision/main"] = [(503, {}, b""), (429, {"Retry-After": "0"}, b"")]
    async with watched() as seen:
        result = await fetch(seen.bus, "org/name", settings=QUICK)
    assert result is not None
    assert result.retries == 2
    assert seen.of(DownloadFinished)[0].attributes["retries"] == 2
    warnings = [record.message for record in caplog.records if record.name == "phasebus.downloads"]
    assert len(warnings) == 1
    assert re.fullmatch(r"hf://org/name is not listed yet: .*503.*; retrying, \d times at most", warnings[0])


@pytest.mark.parametrize(
    ("mode", "names"),
    [
        ("MODEL_AND_TOKENIZER", set(FILES)),
        ("TOKENIZER_ONLY", {"config.json", "tokenizer.json", "tokenizer_config.json"}),
        ("EXCLUDE_SAFETENSORS", set(FILES) - {"model.safetensors"}),
    ],
)
async def test_mode_downloads_its_files_only(hub: HubServer, mode: str, names: set[str], tmp_path: Path) -> None:
    hub.repositories["org/name"] = Repository(FILES)
    async with watched() as seen:
        await fetch(seen.bus, "org/name", mode, destination=tmp_path / "there", settings=QUICK)  # type: ignore[arg-type]
    assert set(tree(tmp_path / "there")) == names


async def test_mode_none_downloads_the_extra_files(hub: HubServer, tmp_path: Path) -> None:
    hub.repositories["org/adapter"] = Repository(FILES)
    extra = [ExtraFile(source="org/adapter", destination=tmp_path / "adapter")]
    async with watched() as seen:
        assert await fetch(seen.bus, "org/name", "NONE", extra_files=extra, settings=QUICK) is None
    assert tree(tmp_path / "adapter") == FILES


async def test_extra_files_are_downloaded_beside_the_model(hub: HubServer, tmp_path: Path) -> None:
    hub.repositories["org/name"] = Repository(FILES)
    hub.repositories["org/adapter"] = Repository({"adapter_config.json": b"{}"})
    (tmp_path / "cache-of-yesterday").mkdir()
    (tmp_path / "cache-of-yesterday" / "compiled.so").write_bytes(noise(70_000))
    extra = [
        ExtraFile(source="hf://org/adapter", destination=tmp_path / "adapter"),
        ExtraFile(source=str(tmp_path / "cache-of-yesterday"), destination=tmp_path / "compiled"),
    ]
    async with watched() as seen:
        result = await fetch(seen.bus, "org/name", extra_files=extra, settings=QUICK)
    assert result is not None
    assert [each.path for each in result.extra] == [tmp_path / "adapter", tmp_path / "compiled"]
    assert tree(tmp_path / "compiled") == {"compiled.so": noise(70_000)}
    assert {each.attributes["model"] for each in seen.of(DownloadStarted)} == {"hf://org/name"}
    first_end = next(n for n, each in enumerate(seen.events) if isinstance(each, DownloadFinished))
    assert len([each for each in seen.events[:first_end] if isinstance(each, DownloadStarted)]) == 3


async def test_other_weight_formats_are_left_out_beside_safetensors(hub: HubServer) -> None:
    hub.repositories["org/name"] = Repository(
        {**FILES, "pytorch_model.bin": noise(5_000), "original/w.pth": noise(5_000)}
    )
    async with watched() as seen:
        result = await fetch(seen.bus, "org/name", settings=QUICK)
    assert result is not None
    assert set(tree(result.path)) == set(FILES)


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "a\\..\\evil", ".phasebus/record.jsonl"])
async def test_name_that_leads_out_of_the_destination_is_rejected(hub: HubServer, name: str, tmp_path: Path) -> None:
    hub.repositories["org/name"] = Repository({"config.json": b"{}", name: b"evil"})
    async with watched() as seen:
        with pytest.raises(DownloadError, match=r"must not lead out|own state"):
            await fetch(seen.bus, "org/name", destination=tmp_path / "there", settings=QUICK)
    assert tree(tmp_path) == {}


async def test_file_with_another_digest_never_gets_its_name(hub: HubServer, tmp_path: Path) -> None:
    hub.repositories["org/name"] = Repository(FILES)
    digest = hashlib.sha256(FILES["tokenizer.json"]).hexdigest()
    hub.answers[f"/delivery/{digest}"] = [(200, {}, noise(9_000, 7))] * 3
    async with watched() as seen:
        with pytest.raises(DownloadError, match=rf"tokenizer.json of hf://org/name .* expected {digest}"):
            await fetch(seen.bus, "org/name", destination=tmp_path / "there", settings=QUICK)
    assert "tokenizer.json" not in tree(tmp_path / "there")


async def test_file_damaged_once_is_fetched_again(hub: HubServer) -> None:
    hub.repositories["org/name"] = Repository(FILES)
    digest = hashlib.sha256(FILES["tokenizer.json"]).hexdigest()
    hub.answers[f"/delivery/{digest}"] = [(200, {}, noise(9_000, 7)), (200, {}, noise(8_999, 7))]
    async with watched() as seen:
        result = await fetch(seen.bus, "org/name", settings=QUICK)
    assert result is not None
    assert tree(result.path) == FILES
    assert result.retries == 2
    assert seen.of(FileFinished, "tokenizer.json")[0].attributes["retries"] == 2


async def test_malformed_safetensors_with_the_right_digest_are_an_error(hub: HubServer) -> None:
    hub.repositories["org/name"] = Repository({"config.json": b"{}", "model.safetensors": noise(10_000)})
    async with watched() as seen:
        with pytest.raises(DownloadError, match="header claims"):
            await fetch(seen.bus, "org/name", settings=QUICK)


async def test_progress_of_a_file_is_reported_ten_times_a_second_at_most(hub: HubServer) -> None:
    hub.repositories["org/name"] = Repository({"config.json": b"{}", "big.bin": noise(30_000_000)})
    async with watched() as seen:
        await fetch(seen.bus, "org/name", settings=QUICK)
    [finished] = seen.of(FileFinished, "big.bin")
    progress = seen.of(FileProgress, "big.bin")
    assert len(progress) <= 1 + 10 * finished.seconds
    assert [each.done for each in progress] == sorted(each.done for each in progress)
