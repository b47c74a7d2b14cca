"""Models that are on the machine already, and files copied from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from phasebus.initializer import DownloadError, DownloadFinished, ExtraFile, FileFinished, LLMConfig
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
async def test_a_model_that_is_there_is_used_where_it_is(model: Path, form: str) -> None:
    async with watched() as seen:
        result = await fetch(seen.bus, form.format(model))
    assert result is not None
    assert (result.path, result.cache_hits, result.fetched) == (model, 3, 0)
    assert seen.of(DownloadFinished)[0].attributes["source"] == "file"
    assert not (model / ".phasebus").exists()


async def test_with_a_destination_it_is_copied_there(model: Path, tmp_path: Path) -> None:
    async with watched() as seen:
        result = await fetch(seen.bus, str(model), destination=tmp_path / "there", settings=QUICK)
    assert result is not None
    assert result.path == tmp_path / "there"
    assert tree(tmp_path / "there") == FILES
    assert len(seen.of(FileFinished)) == 3


async def test_one_file_is_copied_into_a_folder(model: Path, tmp_path: Path) -> None:
    extra = [ExtraFile(source=str(model / "config.json"), destination=tmp_path / "there")]
    async with watched() as seen:
        result = await fetch(seen.bus, str(model), extra_files=extra, settings=QUICK)
    assert result is not None
    assert result.extra[0].path == tmp_path / "there" / "config.json"
    assert tree(tmp_path / "there") == {"config.json": b"{}"}


@pytest.mark.parametrize(
    ("name", "says"),
    [("nothing", "there is no model at .*nothing.*as `hf download` makes it"), ("empty", "has no config.json")],
)
async def test_what_is_no_model_is_said(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "empty").mkdir()
    async with watched() as seen:
        with pytest.raises(DownloadError, match=says):
            await fetch(seen.bus, str(tmp_path / name))


async def test_a_local_model_that_was_cut_off_is_refused(model: Path) -> None:
    (model / "model.safetensors").write_bytes(FILES["model.safetensors"][:-1])
    async with watched() as seen:
        with pytest.raises(
            DownloadError, match=r"model.safetensors is incomplete or damaged: its header describes 5000 bytes"
        ):
            await fetch(seen.bus, str(model))


async def test_a_single_gguf_file_is_a_model(tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF")
    async with watched() as seen:
        result = await fetch(seen.bus, str(tmp_path / "tiny.gguf"))
    assert result is not None
    assert result.path == tmp_path / "tiny.gguf"


async def test_an_extra_file_that_is_not_there_fails_the_whole(model: Path, tmp_path: Path) -> None:
    extra = [ExtraFile(source=str(tmp_path / "nowhere"), destination=tmp_path / "there")]
    async with watched() as seen:
        with pytest.raises(DownloadError, match=r"nowhere' does not exist"):
            await fetch(seen.bus, str(model), extra_files=extra, settings=QUICK)


def test_extra_files_are_given_as_pairs_or_by_name() -> None:
    config = LLMConfig.model_validate(
        {"model": "m", "extra_files": [["s3://b/a", "/a"], {"source": "s3://b/b", "destination": "/b"}]}
    )
    assert config.extra_files == [
        ExtraFile(source="s3://b/a", destination=Path("/a")),
        ExtraFile(source="s3://b/b", destination=Path("/b")),
    ]
