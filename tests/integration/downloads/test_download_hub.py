"""The real huggingface_hub against a server that speaks the hub's protocol."""

from __future__ import annotations

import hashlib
import logging
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


async def test_a_model_arrives_whole_and_every_file_is_told_of(hub: HubServer) -> None:
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
    told = finished.attributes
    assert (told["source"], told["model"], told["bytes"], told["files"]) == ("hf", "hf://org/name", total, 5)
    assert told["revision"] == hub.repositories["org/name"].commit
    last = seen.of(DownloadProgress)[-1]
    assert (last.done, last.total, last.unit) == (total, total, "By")


async def test_what_is_there_already_is_not_fetched_again(hub: HubServer) -> None:
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


async def test_huggingface_hub_finds_what_was_fetched_and_the_other_way_round(hub: HubServer) -> None:
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


async def test_the_token_is_shown_to_the_hub_and_to_nobody_else(
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
    ("model", "says"),
    [
        ("org/nothing", "there is no repository 'org/nothing'"),
        ("org/private", "HF_TOKEN"),
        ("org/gated", "accept its terms"),
        ("org/name@v9", "has no revision 'v9'"),
    ],
)
async def test_what_cannot_be_had_is_said_with_the_way_out(hub: HubServer, model: str, says: str) -> None:
    hub.repositories["org/name"] = Repository(FILES)
    hub.repositories["org/private"] = Repository(FILES, token="hf_another")
    hub.repositories["org/gated"] = Repository(FILES, gated=True)
    async with watched() as seen:
        with pytest.raises(DownloadError, match=says):
            await fetch(seen.bus, model, settings=QUICK)
    assert len(hub.of("/api/")) == 1


async def test_a_busy_hub_is_asked_again(hub: HubServer) -> None:
    hub.repositories["org/name"] = Repository({"config.json": b"{}"})
    hub.answers["/api/models/org/name/revision/main"] = [(503, {}, b""), (429, {"Retry-After": "0"}, b"")]
    async with watched() as seen:
        result = await fetch(seen.bus, "org/name", settings=QUICK)
    assert result is not None
    assert result.retries == 2
    assert seen.of(DownloadFinished)[0].attributes["retries"] == 2


@pytest.mark.parametrize(
    ("mode", "names"),
    [
        ("MODEL_AND_TOKENIZER", set(FILES)),
        ("TOKENIZER_ONLY", {"config.json", "tokenizer.json", "tokenizer_config.json"}),
        ("EXCLUDE_SAFETENSORS", set(FILES) - {"model.safetensors"}),
    ],
)
async def test_a_mode_chooses_files_as_ray_does(hub: HubServer, mode: str, names: set[str], tmp_path: Path) -> None:
    hub.repositories["org/name"] = Repository(FILES)
    async with watched() as seen:
        await fetch(seen.bus, "org/name", mode, destination=tmp_path / "there", settings=QUICK)  # type: ignore[arg-type]
    assert set(tree(tmp_path / "there")) == names


async def test_without_a_model_the_extra_files_are_fetched_all_the_same(hub: HubServer, tmp_path: Path) -> None:
    hub.repositories["org/adapter"] = Repository(FILES)
    extra = [ExtraFile(source="org/adapter", destination=tmp_path / "adapter")]
    async with watched() as seen:
        assert await fetch(seen.bus, "org/name", "NONE", extra_files=extra, settings=QUICK) is None
    assert tree(tmp_path / "adapter") == FILES


async def test_extra_files_are_fetched_side_by_side_with_the_model(hub: HubServer, tmp_path: Path) -> None:
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


async def test_weights_in_other_formats_are_left_where_safetensors_are(hub: HubServer) -> None:
    hub.repositories["org/name"] = Repository(
        {**FILES, "pytorch_model.bin": noise(5_000), "original/w.pth": noise(5_000)}
    )
    async with watched() as seen:
        result = await fetch(seen.bus, "org/name", settings=QUICK)
    assert result is not None
    assert set(tree(result.path)) == set(FILES)


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "a\\..\\evil", ".phasebus/record.jsonl"])
async def test_a_listing_that_leads_out_of_the_destination_is_refused(
    hub: HubServer, name: str, tmp_path: Path
) -> None:
    hub.repositories["org/name"] = Repository({"config.json": b"{}", name: b"evil"})
    async with watched() as seen:
        with pytest.raises(DownloadError, match=r"must not lead out|own state"):
            await fetch(seen.bus, "org/name", destination=tmp_path / "there", settings=QUICK)
    assert tree(tmp_path) == {}


async def test_a_file_that_is_not_what_the_hub_says_never_gets_its_name(hub: HubServer, tmp_path: Path) -> None:
    hub.repositories["org/name"] = Repository(FILES)
    digest = hashlib.sha256(FILES["tokenizer.json"]).hexdigest()
    hub.answers[f"/delivery/{digest}"] = [(200, {}, noise(9_000, 7))] * 3
    async with watched() as seen:
        with pytest.raises(DownloadError, match=rf"tokenizer.json of hf://org/name .* expected {digest}"):
            await fetch(seen.bus, "org/name", destination=tmp_path / "there", settings=QUICK)
    assert "tokenizer.json" not in tree(tmp_path / "there")


async def test_a_file_damaged_once_is_fetched_again(hub: HubServer) -> None:
    hub.repositories["org/name"] = Repository(FILES)
    digest = hashlib.sha256(FILES["tokenizer.json"]).hexdigest()
    hub.answers[f"/delivery/{digest}"] = [(200, {}, noise(9_000, 7)), (200, {}, noise(8_999, 7))]
    async with watched() as seen:
        result = await fetch(seen.bus, "org/name", settings=QUICK)
    assert result is not None
    assert tree(result.path) == FILES
    assert result.retries == 2
    assert seen.of(FileFinished, "tokenizer.json")[0].attributes["retries"] == 2


async def test_malformed_safetensors_are_refused_though_the_digest_fits(hub: HubServer) -> None:
    hub.repositories["org/name"] = Repository({"config.json": b"{}", "model.safetensors": noise(10_000)})
    async with watched() as seen:
        with pytest.raises(DownloadError, match="header claims"):
            await fetch(seen.bus, "org/name", settings=QUICK)


async def test_progress_is_told_at_most_ten_times_a_second_a_file(hub: HubServer) -> None:
    hub.repositories["org/name"] = Repository({"config.json": b"{}", "big.bin": noise(30_000_000)})
    async with watched() as seen:
        await fetch(seen.bus, "org/name", settings=QUICK)
    [finished] = seen.of(FileFinished, "big.bin")
    told = seen.of(FileProgress, "big.bin")
    assert len(told) <= 1 + 10 * finished.seconds
    assert [each.done for each in told] == sorted(each.done for each in told)
