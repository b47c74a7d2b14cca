"""What other programs leave in the folder of a model: files that are no part of it, and downloads that were interrupted."""

from __future__ import annotations

import io
import logging
import os
import zipfile
from contextlib import closing
from pathlib import Path

import pytest

from phasebus.initializer import DownloadError
from phasebus.initializer.downloads import fetch
from phasebus.initializer.downloads.errors import CorruptError
from phasebus.initializer.downloads.paths import free_bytes
from phasebus.initializer.downloads.sources.local import LocalSource
from tests.support.downloads import QUICK, safetensors, tree, watched

pytestmark = pytest.mark.anyio

APPLE_DOUBLE = b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(100)
FILES = {"config.json": b"{}", "model.safetensors": safetensors(500)}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    write(folder, FILES)
    return folder


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


async def failure(model: Path, destination: Path | None = None) -> str:
    async with watched() as seen:
        with pytest.raises(DownloadError) as raised:
            await fetch(seen.bus, str(model), destination=destination, settings=QUICK)
    return str(raised.value)


@pytest.mark.parametrize(
    "name",
    ["._model.safetensors", "._config.json", "._model.safetensors.index.json", ".DS_Store", ".nfs00000000012ab34c"],
)
async def test_files_of_other_programs_are_no_part_of_a_model(
    name: str, model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(model, {name: APPLE_DOUBLE})
    async with watched() as seen:
        used = await fetch(seen.bus, str(model))
        await fetch(seen.bus, str(model), destination=tmp_path / "there", settings=QUICK)
    assert used is not None
    assert used.files == len(FILES)
    assert tree(tmp_path / "there") == FILES
    assert not caplog.records


async def test_shard_is_missing_also_beside_files_of_macos(tmp_path: Path) -> None:
    shards = {f"model-0000{number}-of-00003.safetensors": safetensors(5) for number in (1, 2)}
    hidden = {f"._model-0000{number}-of-00003.safetensors": APPLE_DOUBLE for number in (1, 2)}
    write(tmp_path, {"config.json": b"{}", **shards, **hidden})
    assert "lacks model-00003-of-00003.safetensors" in await failure(tmp_path)


async def test_file_that_aria2_has_not_completed_is_an_error(model: Path, tmp_path: Path) -> None:
    write(model, {"model.safetensors.aria2": b"\0\1"})
    expected = "model.safetensors is incomplete: model.safetensors.aria2 is of a download by aria2"
    assert expected in await failure(model)
    assert expected in await failure(model, tmp_path / "there")


@pytest.mark.parametrize("partial", [".cache/huggingface/download/a.b.incomplete", "._____temp/model.safetensors"])
async def test_folder_of_an_interrupted_download_without_weights_is_an_error(partial: str, model: Path) -> None:
    write(model, {partial: b"part"})
    async with watched() as seen:
        assert await fetch(seen.bus, str(model))
    (model / "model.safetensors").unlink()
    assert f"it has no weights, and {model / partial} of a download that was interrupted" in await failure(model)


async def test_snapshot_of_an_interrupted_download_without_weights_is_an_error(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--org--name" / "snapshots" / "c0ffee"
    write(snapshot, {"config.json": b"{}", "../../blobs/ab.incomplete": b"part"})
    assert "blobs/ab.incomplete of a download that was interrupted" in await failure(snapshot)


async def test_part_of_a_gguf_model_without_the_others_is_an_error(tmp_path: Path) -> None:
    first = tmp_path / "tiny-00001-of-00003.gguf"
    write(tmp_path, {first.name: b"GGUF", "tiny-00003-of-00003.gguf": b"GGUF"})
    assert "is one part of a model, and tiny-00002-of-00003.gguf is not there" in await failure(first)
    write(tmp_path, {"tiny-00002-of-00003.gguf": b"GGUF"})
    async with watched() as seen:
        assert await fetch(seen.bus, str(first))


def archive(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as opened:
        opened.writestr("archive/data.pkl", content)
    return file.getvalue()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "model.pt"])
async def test_pytorch_file_that_is_cut_off_is_an_error(name: str, model: Path) -> None:
    write(model, {name: archive(b"x" * 100_000), "legacy.bin": b"\x80\x02}q\0."})
    async with watched() as seen:
        assert await fetch(seen.bus, str(model))
    write(model, {name: archive(b"x" * 100_000)[:90_000]})
    assert f"{name} is incomplete or damaged: it is cut off" in await failure(model)


async def test_file_whose_name_cannot_be_copied_is_skipped_and_named(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(model, {"a\\b.txt": b"1", os.fsdecode(b"M\xfcnchen.txt"): b"2"})
    with caplog.at_level(logging.WARNING):
        async with watched() as seen:
            await fetch(seen.bus, str(model), destination=tmp_path / "there", settings=QUICK)
    assert tree(tmp_path / "there") == FILES
    assert "they are skipped: 'M\\udcfcnchen.txt', 'a\\\\b.txt'" in caplog.text


@pytest.mark.parametrize("status", [os.statvfs_result((512, 512, 0, 0, 0, 0, 0, 0, 0, 255)), None])
def test_free_space_of_a_file_system_without_blocks_is_unknown(
    status: os.statvfs_result | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def statvfs(_: object) -> os.statvfs_result:
        if status is None:
            raise OSError(38, "Function not implemented")
        return status

    assert free_bytes(tmp_path) is not None
    monkeypatch.setattr(os, "statvfs", statvfs)
    assert free_bytes(tmp_path) is None


@pytest.mark.parametrize(
    ("folder", "file", "message"),
    [
        ("lora", "adapter_config.json", "is not a model: it is an adapter; name the model that it adapts"),
        (
            "models--org--my--name",
            "snapshots/c0ffee/config.json",
            "folder of the hub's cache; write hf://org/my--name, or",
        ),
        ("empty", "README.md", "is not a model: it has no config.json"),
    ],
)
async def test_folder_that_is_no_model_is_an_error_that_names_what_it_is(
    folder: str, file: str, message: str, tmp_path: Path
) -> None:
    write(tmp_path / folder, {file: b"{}"})
    assert message in await failure(tmp_path / folder)


async def test_folder_of_diffusers_is_a_model(tmp_path: Path) -> None:
    write(tmp_path, {"model_index.json": b"{}", "transformer/diffusion_pytorch_model.safetensors": safetensors(5)})
    async with watched() as seen:
        assert await fetch(seen.bus, str(tmp_path))


def test_file_that_is_written_to_while_it_is_copied_is_copied_again(tmp_path: Path) -> None:
    path, room = tmp_path / "model.bin", memoryview(bytearray(4))
    path.write_bytes(b"old!" * 2)
    os.utime(path, ns=(0, 0))
    source = LocalSource(str(tmp_path), tmp_path)
    (file,) = source.listing().files
    with closing(source.open(file, 0, None)) as body:
        assert bytes(body.receive(room)) == b"old!"
        with path.open("r+b") as opened:
            opened.write(b"new!" * 2)
        assert bytes(body.receive(room)) == b"new!"
        with pytest.raises(CorruptError, match="was changed while it was copied"):
            body.receive(room)
    with closing(source.open(file, 0, None)) as again:
        assert b"".join(bytes(again.receive(room)) for _ in range(3)) == b"new!new!"
