"""Models on this machine, used in place, and files copied from it."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from phasebus.initializer import (
    DownloadError,
    DownloadFinished,
    ExtraFile,
    FileFinished,
    FileStarted,
    ListingFinished,
    LLMConfig,
)
from phasebus.initializer.downloads import fetch
from tests.support.downloads import QUICK, noise, safetensors, tree, watched

pytestmark = pytest.mark.anyio

FILES = {"config.json": b"{}", "model.safetensors": safetensors(5_000), "nested/a.bin": noise(700_000)}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        (tmp_path / "tiny" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tiny" / name).write_bytes(content)
    return tmp_path / "tiny"


@pytest.mark.parametrize("form", ["{}", "file://{}"])
async def test_local_model_is_used_in_place(model: Path, form: str) -> None:
    async with watched() as seen:
        result = await fetch(seen.bus, form.format(model))
    assert result is not None
    assert (result.path, result.cache_hits, result.fetched) == (model, 3, 0)
    assert seen.of(DownloadFinished)[0].attributes["source"] == "file"
    assert not (model / ".phasebus").exists()


async def test_local_model_is_copied_to_a_destination(model: Path, tmp_path: Path) -> None:
    async with watched() as seen:
        result = await fetch(seen.bus, str(model), destination=tmp_path / "there", settings=QUICK)
    assert result is not None
    assert result.path == tmp_path / "there"
    assert tree(tmp_path / "there") == FILES
    assert len(seen.of(FileFinished)) == 3


@pytest.fixture
def projected(model: Path, tmp_path: Path) -> Path:
    """The model as Kubernetes projects a volume, and as a clone with git-lfs."""
    hidden = model / "..2026_01_01"  # Kubernetes swaps the folder that ..data links to
    model.rename(tmp_path / hidden.name)
    model.mkdir()
    (tmp_path / hidden.name).rename(hidden)
    (model / "..data").symlink_to(hidden.name)
    for name in FILES:
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).symlink_to((model / "..data" / name).resolve())
    (model / ".git" / "lfs").mkdir(parents=True)
    (model / ".git" / "lfs" / "object").write_bytes(FILES["model.safetensors"])
    (model / ".git" / "annex").symlink_to("gone")  # a broken link of a model is an error
    return model


async def test_copy_has_each_file_of_a_clone_or_of_a_projected_volume_once(projected: Path, tmp_path: Path) -> None:
    async with watched() as seen:
        copied = await fetch(seen.bus, str(projected), destination=tmp_path / "there", settings=QUICK)
        used = await fetch(seen.bus, str(projected), settings=QUICK)
    assert copied is not None
    assert used is not None
    assert tree(tmp_path / "there") == FILES
    assert copied.files == used.files == 3


@pytest.mark.parametrize("indexed", [False, True])
async def test_weights_of_another_model_in_the_destination_are_named(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, *, indexed: bool
) -> None:
    if indexed:  # then engines load only what the index names
        (model / "model.safetensors.index.json").write_text('{"weight_map": {"weight": "model.safetensors"}}')
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "model-00001-of-00002.safetensors").write_bytes(FILES["model.safetensors"])
    (tmp_path / "there" / "other.bin").write_bytes(b"x")
    async with watched() as seen:
        await fetch(seen.bus, str(model), destination=tmp_path / "there", settings=QUICK)
    warned = "an engine may load too: 'model-00001-of-00002.safetensors'; remove them" in caplog.text
    assert warned is not indexed


async def test_listing_the_files_is_a_step_of_the_download(model: Path, tmp_path: Path) -> None:
    async with watched() as seen:
        await fetch(seen.bus, str(model), destination=tmp_path / "there", settings=QUICK)
    [listing], [download], files = seen.of(ListingFinished), seen.of(DownloadFinished), seen.of(FileStarted)
    assert (listing.parent, listing.attributes["files"], listing.attributes["source"]) == (download.step, 3, "file")
    assert all(listing.monotonic_ns <= file.monotonic_ns for file in files)


async def test_one_file_is_copied_into_a_folder(model: Path, tmp_path: Path) -> None:
    extra = [ExtraFile(source=str(model / "config.json"), destination=tmp_path / "there")]
    async with watched() as seen:
        result = await fetch(seen.bus, str(model), extra_files=extra, settings=QUICK)
    assert result is not None
    assert result.extra[0].path == tmp_path / "there" / "config.json"
    assert tree(tmp_path / "there") == {"config.json": b"{}"}


@pytest.mark.parametrize(
    ("name", "message"),
    [("nothing", "there is no model at .*nothing.*as `hf download` makes it"), ("empty", "has no config.json")],
)
async def test_folder_without_a_model_is_an_error(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    async with watched() as seen:
        with pytest.raises(DownloadError, match=message):
            await fetch(seen.bus, str(tmp_path / name))


async def test_truncated_local_model_is_an_error(model: Path) -> None:
    (model / "model.safetensors").write_bytes(FILES["model.safetensors"][:-1])
    async with watched() as seen:
        with pytest.raises(
            DownloadError, match=r"model.safetensors is incomplete or damaged: its header describes 5000 bytes"
        ):
            await fetch(seen.bus, str(model))


async def test_single_gguf_file_is_a_model(tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF")
    async with watched() as seen:
        result = await fetch(seen.bus, str(tmp_path / "tiny.gguf"))
    assert result is not None
    assert result.path == tmp_path / "tiny.gguf"


async def test_missing_extra_file_fails_the_download(model: Path, tmp_path: Path) -> None:
    extra = [ExtraFile(source=str(tmp_path / "nowhere"), destination=tmp_path / "there")]
    async with watched() as seen:
        with pytest.raises(DownloadError, match=r"nowhere' does not exist"):
            await fetch(seen.bus, str(model), extra_files=extra, settings=QUICK)


def test_extra_files_are_pairs_or_mappings() -> None:
    config = LLMConfig.model_validate(
        {"model": "m", "extra_files": [["s3://b/a", "/a"], {"source": "s3://b/b", "destination": "/b"}]}
    )
    assert config.extra_files == [
        ExtraFile(source="s3://b/a", destination=Path("/a")),
        ExtraFile(source="s3://b/b", destination=Path("/b")),
    ]


@pytest.mark.parametrize("config", ["config.json", "params.json"])
async def test_folder_in_the_format_of_transformers_or_mistral_is_a_model(tmp_path: Path, config: str) -> None:
    (tmp_path / config).write_text("{}")
    (tmp_path / "consolidated.safetensors").write_bytes(safetensors(100))
    async with watched() as seen:
        result = await fetch(seen.bus, str(tmp_path))
    assert result is not None
    assert result.files == 2


INDEX = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}})


async def test_missing_shard_of_a_local_model_is_an_error(model: Path) -> None:
    (model / "model.safetensors.index.json").write_text(INDEX)
    (model / "model-1.safetensors").write_bytes(safetensors(100))
    async with watched() as seen:
        with pytest.raises(DownloadError, match=r"index.json names model-2.safetensors, and it is not there; copy"):
            await fetch(seen.bus, str(model))
        assert await fetch(seen.bus, str(model), "TOKENIZER_ONLY") is not None
        (model / "model-2.safetensors").write_bytes(safetensors(100))
        assert await fetch(seen.bus, str(model)) is not None


@pytest.mark.parametrize("content", [INDEX, "{}", "[]", "not json", '{"weight_map": {"a": 7, "b": "../x"}}'])
async def test_index_without_any_of_its_shards_is_a_leftover(model: Path, content: str) -> None:
    (model / "model.safetensors.index.json").write_text(content)
    (model / "pytorch_model.bin.index.json").write_text(content)
    async with watched() as seen:
        assert await fetch(seen.bus, str(model)) is not None


@pytest.mark.parametrize("name", ["model-2.safetensors", "pytorch_model.bin", "tokenizer.json", "config.json"])
async def test_link_of_a_local_model_to_a_missing_file_is_an_error(model: Path, name: str) -> None:
    (model / name).unlink(missing_ok=True)
    (model / name).symlink_to("nowhere")
    async with watched() as seen:
        with pytest.raises(DownloadError, match=f"{name} is a symbolic link to a file that does not exist"):
            await fetch(seen.bus, str(model))


async def test_link_to_a_missing_file_that_no_engine_reads_is_ignored(model: Path) -> None:
    (model / "README.md").symlink_to("nowhere")
    async with watched() as seen:
        assert await fetch(seen.bus, str(model)) is not None


async def test_missing_shard_of_a_model_without_an_index_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for number in (1, 3):
        (tmp_path / f"model-0000{number}-of-00003.safetensors").write_bytes(safetensors(100))
    async with watched() as seen:
        with pytest.raises(
            DownloadError, match=r"lacks model-00002-of-00003\.safetensors, which the names .* imply; copy"
        ):
            await fetch(seen.bus, str(tmp_path))
        (tmp_path / "consolidated.safetensors").write_bytes(safetensors(100))
        assert await fetch(seen.bus, str(tmp_path)) is not None


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "pytorch_model.bin", "tokenizer.model"])
async def test_empty_file_of_a_local_model_is_an_error(model: Path, name: str) -> None:
    (model / name).write_bytes(b"")
    async with watched() as seen:
        with pytest.raises(DownloadError, match=f"{name} is empty; copy it again"):
            await fetch(seen.bus, str(model))


async def test_configuration_that_is_cut_off_is_an_error(model: Path) -> None:
    (model / "config.json").write_text('{"architectures": [')
    async with watched() as seen:
        with pytest.raises(
            DownloadError, match=r"config\.json cannot be read as JSON \(JSONDecodeError\); copy it again"
        ):
            await fetch(seen.bus, str(model))


@pytest.mark.parametrize("destination", [None, "copy"])
async def test_folder_that_cannot_be_read_is_an_error(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, destination: str | None
) -> None:
    def denied(path: Path | str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", denied)
    monkeypatch.setattr("phasebus.initializer.downloads.sources.local.os.scandir", denied)
    async with watched() as seen:
        with pytest.raises(DownloadError, match="tiny cannot be read: Permission denied"):
            await fetch(seen.bus, str(model), destination=destination and tmp_path / destination, settings=QUICK)


@pytest.mark.parametrize("destination", [None, "copy"])
async def test_model_in_a_folder_that_may_not_be_searched_is_not_called_missing(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, destination: str | None
) -> None:
    status = Path.stat

    def denied(path: Path, **options: Any) -> os.stat_result:
        if path == model:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return status(path, **options)

    monkeypatch.setattr(Path, "stat", denied)
    async with watched() as seen:
        with pytest.raises(DownloadError, match="tiny cannot be read: Permission denied"):
            await fetch(seen.bus, str(model), destination=destination and tmp_path / destination, settings=QUICK)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


@pytest.mark.parametrize(
    "name", ["model.safetensors", "model.gguf", "pytorch_model.bin", "tokenizer.model", "vocab.json"]
)
async def test_git_lfs_pointer_in_place_of_a_file_is_an_error(model: Path, name: str) -> None:
    (model / name).write_text(POINTER)
    async with watched() as seen:
        with pytest.raises(DownloadError, match="git lfs pull"):
            await fetch(seen.bus, str(model))


async def test_git_lfs_pointer_in_place_of_another_file_is_ignored(model: Path) -> None:
    (model / "logo.png").write_text(POINTER)
    async with watched() as seen:
        assert await fetch(seen.bus, str(model)) is not None


@pytest.mark.parametrize("prefix", ["file://", "FILE://localhost"])
async def test_file_url_is_a_path_with_all_its_characters(tmp_path: Path, prefix: str) -> None:
    folder = tmp_path / "a b#c?d%"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    async with watched() as seen:
        for path in (folder, str(folder).replace(" ", "%20").replace("#", "%23")):
            result = await fetch(seen.bus, f"{prefix}{path}")
            assert result is not None
            assert result.path == folder


async def test_host_of_a_file_url_is_an_error() -> None:
    async with watched() as seen:
        with pytest.raises(DownloadError, match="names the host 'models'; write file:///path"):
            await fetch(seen.bus, "file://models/x")


async def test_files_behind_symbolic_links_are_copied(model: Path, tmp_path: Path) -> None:
    (tmp_path / "shared" / "deep").mkdir(parents=True)
    (tmp_path / "shared" / "deep" / "vocab.json").write_bytes(b"[]")
    (model / "tokenizer").symlink_to("../shared")
    (model / "again").symlink_to("../shared")
    (model / "linked.json").symlink_to("config.json")
    async with watched() as seen:
        await fetch(seen.bus, str(model), destination=tmp_path / "there", settings=QUICK)
    linked = {"tokenizer/deep/vocab.json": b"[]", "again/deep/vocab.json": b"[]", "linked.json": b"{}"}
    assert tree(tmp_path / "there") == {**FILES, **linked}


@pytest.mark.parametrize(
    ("name", "target", "message"),
    [
        ("loop", ".", "into a folder above it"),
        ("nested/up", "..", "into a folder above it"),
        ("gone", "nowhere", "to nothing"),
    ],
)
async def test_link_that_cannot_be_copied_is_an_error(
    model: Path, tmp_path: Path, name: str, target: str, message: str
) -> None:
    (model / name).symlink_to(target)
    async with watched() as seen:
        with pytest.raises(DownloadError, match=f"{name} is a symbolic link {message}"):
            await fetch(seen.bus, str(model), destination=tmp_path / "there", settings=QUICK)
        assert await fetch(seen.bus, str(model)) is not None


async def test_destination_inside_the_model_is_rejected_and_the_model_itself_is_not(model: Path) -> None:
    (model.parent / "link").symlink_to(model)
    async with watched() as seen:
        for destination in (model / "copy", model.parent / "link" / "nested" / "copy"):
            with pytest.raises(DownloadError, match="is inside the model"):
                await fetch(seen.bus, str(model), destination=destination)
        await fetch(seen.bus, str(model), destination=model)
    assert {name: content for name, content in tree(model).items() if not name.startswith(".phasebus")} == FILES


@pytest.mark.parametrize(("name", "hint"), [("gpt2", "hf://gpt2"), ("datasets/org/name", "org/name"), ("./gpt2", "")])
async def test_name_that_is_no_folder_may_be_meant_for_the_hub(name: str, hint: str) -> None:
    async with watched() as seen:
        with pytest.raises(DownloadError) as caught:
            await fetch(seen.bus, name)
    assert str(caught.value).endswith(f", or {hint} for a model of the hub") is bool(hint)
