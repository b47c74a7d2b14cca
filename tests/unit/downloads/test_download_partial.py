"""A partial file is continued exactly if it is part of the same file."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phasebus.initializer.downloads import partial as partial_module
from phasebus.initializer.downloads.checks import Digest
from phasebus.initializer.downloads.partial import PartialFile
from phasebus.initializer.downloads.protocol import RemoteFile
from tests.support.downloads import noise

CONTENT = noise(1_000)
FILE = RemoteFile(name="a", size=1_000, digest=Digest("sha256", hashlib.sha256(CONTENT).hexdigest()), validator="v1")


def partial(folder: Path, file: RemoteFile = FILE) -> PartialFile:
    """Return a partial file that is continued however small it is."""
    return PartialFile(folder, file, without_note=0)


def test_small_file_is_never_continued(tmp_path: Path) -> None:
    made = PartialFile(tmp_path, FILE)
    made.open()
    made.restart(None)
    made.add(memoryview(CONTENT)[:400])
    made.flush()
    made.close()
    assert not list(tmp_path.glob("*.json"))
    assert PartialFile(tmp_path, FILE).resumable_bytes() == 0


def begin(folder: Path, file: RemoteFile, content: bytes, validator: str | None = None) -> None:
    """Leave a part of a file, as a process that is killed does."""
    made = partial(folder, file)
    made.open()
    made.restart(validator)
    made.add(memoryview(content))
    made.flush()
    made.close()


@given(cuts=st.lists(st.integers(1, 400), max_size=6))
def test_interrupted_file_is_completed_unchanged(tmp_path_factory: pytest.TempPathFactory, cuts: list[int]) -> None:
    folder = tmp_path_factory.mktemp("partial")
    at = 0
    for cut in [*cuts, 1_000]:
        made = partial(folder)
        made.open()
        made.hash_existing(lambda: None)
        assert made.size == at
        if at == 0:
            made.restart(None)
        made.add(memoryview(CONTENT)[at : at + cut])
        at = made.size
        made.flush()
        if at == 1_000:
            assert made.digest() == FILE.digest
            made.move_to(folder / "done")
        made.close()
        if at == 1_000:
            break
    assert (folder / "done").read_bytes() == CONTENT
    assert [each.name for each in folder.iterdir()] == ["done"]


@pytest.mark.parametrize(
    "change",
    [
        {"size": 999},
        {"digest": Digest("sha256", "0" * 64)},
        {"digest": None},
        {"validator": "v2"},
    ],
    ids=lambda change: str(next(iter(change))),
)
def test_part_of_another_file_is_not_continued(tmp_path: Path, change: dict[str, Any]) -> None:
    begin(tmp_path, FILE, CONTENT[:400])
    assert partial(tmp_path, FILE).resumable_bytes() == 400
    assert partial(tmp_path, dataclasses.replace(FILE, **change)).resumable_bytes() == 0


def test_part_without_a_note_is_not_continued(tmp_path: Path) -> None:
    begin(tmp_path, FILE, CONTENT[:400])
    next(tmp_path.glob("*.json")).unlink()
    assert partial(tmp_path, FILE).resumable_bytes() == 0


def test_torn_note_is_ignored(tmp_path: Path) -> None:
    begin(tmp_path, FILE, CONTENT[:400])
    note = next(tmp_path.glob("*.json"))
    note.write_text(note.read_text()[:20])
    assert partial(tmp_path, FILE).resumable_bytes() == 0


def test_part_that_is_too_long_is_not_continued(tmp_path: Path) -> None:
    begin(tmp_path, FILE, CONTENT + b"more")
    assert partial(tmp_path, FILE).resumable_bytes() == 0


def test_part_without_a_digest_is_dropped_after_another_boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = dataclasses.replace(FILE, digest=None)
    begin(tmp_path, plain, CONTENT[:400], "etag")
    begin(tmp_path, dataclasses.replace(FILE, name="b"), CONTENT[:400])
    assert partial(tmp_path, plain).resumable_bytes() == 400
    monkeypatch.setattr(partial_module, "boot_id", lambda: "another")
    assert partial(tmp_path, plain).resumable_bytes() == 0
    assert partial(tmp_path, dataclasses.replace(FILE, name="b")).resumable_bytes() == 400


def test_symbolic_link_in_place_of_a_part_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"mine")
    partial(tmp_path, FILE).path.symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic"):
        partial(tmp_path, FILE).open()
    assert (tmp_path / "victim").read_bytes() == b"mine"
