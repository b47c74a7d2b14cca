"""The transfer of one file from a source that refuses it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from phasebus.initializer.downloads.download import download
from phasebus.initializer.downloads.errors import DownloadError, TransferError
from phasebus.initializer.downloads.inventory import missing_of_inventory
from phasebus.initializer.downloads.protocol import Listing, RemoteFile, StreamBody
from phasebus.initializer.downloads.record import Record
from phasebus.initializer.downloads.transfer import Transfer
from tests.support.downloads import QUICK, tree, watched


class Refusing:
    """A source that raises an error in place of each file."""

    kind, display = "test", "hf://org/name"

    def __init__(self, error: Exception) -> None:
        self.error = error

    def listing(self) -> Listing:
        raise NotImplementedError

    def open(self, file: RemoteFile, start: int, validator: str | None) -> NoReturn:
        raise self.error

    def close(self) -> None:
        """Do nothing."""


def attempt(error: Exception, folder: Path) -> None:
    (folder / ".phasebus").mkdir()
    file = RemoteFile(name="part/model.safetensors", size=10)
    transfer = Transfer(Refusing(error), file, folder, Record(folder), folder / ".phasebus")
    try:
        transfer.attempt()
    finally:
        transfer.close()


def test_file_that_the_source_does_not_have_is_named(tmp_path: Path) -> None:
    with pytest.raises(DownloadError) as caught:
        attempt(DownloadError("hub.example has no such file (HTTP 404)"), tmp_path)
    assert str(caught.value) == "part/model.safetensors of hf://org/name: hub.example has no such file (HTTP 404)"


def test_failure_that_may_pass_is_raised_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(TransferError) as caught:
        attempt(TransferError("hub.example answered 503", 3.0), tmp_path)
    assert (str(caught.value), caught.value.after) == ("hub.example answered 503", 3.0)


class Store:
    """A source with a copy of a clone."""

    kind, display = "test", "s3://bucket/clone"

    def listing(self) -> Listing:
        return Listing(files=tuple(RemoteFile(name=name, size=2) for name in ("config.json", ".git/HEAD")))

    def open(self, file: RemoteFile, start: int, validator: str | None) -> StreamBody:
        return StreamBody(iter([b"{}"]), size=2)

    def close(self) -> None:
        """Do nothing."""


@pytest.mark.anyio
async def test_inventory_of_a_download_has_the_files_that_were_downloaded(tmp_path: Path) -> None:
    async with watched() as seen:
        await download(seen.bus, Store(), "MODEL_AND_TOKENIZER", tmp_path / "there", QUICK)
    assert tree(tmp_path / "there") == {"config.json": b"{}"}
    assert missing_of_inventory(tmp_path / "there") == []


class WithoutRanges:
    """A source that sends a file of 4 MiB from its first byte each time, and breaks after 2 MiB."""

    kind, display = "test", "https://host/model.bin"

    def __init__(self) -> None:
        self.requests = 0

    def listing(self) -> Listing:
        return Listing(files=(RemoteFile(name="model.bin", size=2**22),))

    def open(self, file: RemoteFile, start: int, validator: str | None) -> StreamBody:
        self.requests += 1
        return StreamBody(self._blocks(), size=file.size)

    def _blocks(self) -> Iterator[bytes]:
        yield bytes(2**21)
        raise TransferError("the connection broke")

    def close(self) -> None:
        """Do nothing."""


@pytest.mark.anyio
async def test_bytes_that_an_earlier_attempt_received_too_are_no_progress(tmp_path: Path) -> None:
    source, settings = WithoutRanges(), QUICK.model_copy(update={"attempts": 3})
    async with watched() as seen:
        with pytest.raises(DownloadError, match=r"could not be downloaded in \d+ attempts: the connection broke"):
            await download(seen.bus, source, "MODEL_AND_TOKENIZER", tmp_path / "there", settings)
    assert source.requests == 3


class Limited:
    """A source that serves one file at a time, and refuses the others as a busy server does."""

    kind, display = "test", "https://host/"

    def __init__(self, number: int, *, broken: bool = False) -> None:
        self.number, self.broken = number, broken
        self.guard = threading.Lock()
        self.refused = threading.Event()

    def listing(self) -> Listing:
        return Listing(files=tuple(RemoteFile(name=f"{each}.bin", size=4) for each in range(self.number)))

    def open(self, file: RemoteFile, start: int, validator: str | None) -> StreamBody:
        if self.broken or not self.guard.acquire(blocking=False):
            self.refused.set()
            raise TransferError("host answered 503", is_busy=True)
        return StreamBody(self._blocks(), size=file.size)

    def _blocks(self) -> Iterator[bytes]:
        try:
            self.refused.wait(20)  # until another file was refused; the last one has none
            yield b"file"
        finally:
            self.guard.release()

    def close(self) -> None:
        """Do nothing."""


@pytest.mark.anyio
async def test_file_that_a_busy_server_refuses_waits_for_the_others(tmp_path: Path) -> None:
    settings = QUICK.model_copy(update={"attempts": 1})
    async with watched() as seen:
        await download(seen.bus, Limited(4), "MODEL_AND_TOKENIZER", tmp_path / "there", settings)
    assert tree(tmp_path / "there") == {f"{each}.bin": b"file" for each in range(4)}


@pytest.mark.anyio
async def test_files_that_a_server_refuses_all_are_an_error(tmp_path: Path) -> None:
    settings = QUICK.model_copy(update={"attempts": 1})
    async with watched() as seen:
        with pytest.raises(DownloadError, match="could not be downloaded in 1 attempts: host answered 503"):
            await download(seen.bus, Limited(4, broken=True), "MODEL_AND_TOKENIZER", tmp_path / "there", settings)
