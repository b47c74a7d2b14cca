"""A file that another version of the model has already is linked, not downloaded."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from phasebus.initializer.downloads import present as present_module
from phasebus.initializer.downloads.checks import Digest
from phasebus.initializer.downloads.present import link
from phasebus.initializer.downloads.protocol import Listing, RemoteFile, StreamBody
from phasebus.initializer.downloads.record import Record
from phasebus.initializer.downloads.sources.hub_cache import other_snapshots
from phasebus.initializer.downloads.transfer import Transfer
from tests.support.downloads import safetensors, tree

CONTENT = safetensors(3_000)
NAME = "part/model.safetensors"
DIGEST = Digest("sha256", hashlib.sha256(CONTENT).hexdigest())
FILE = RemoteFile(name=NAME, size=len(CONTENT), digest=DIGEST)


class Source:
    """Has the file, and counts the requests for it."""

    kind = display = "test"

    def __init__(self) -> None:
        self.requests = 0

    def listing(self) -> Listing:
        raise NotImplementedError

    def open(self, file: RemoteFile, start: int, validator: str | None) -> StreamBody:
        self.requests += 1
        return StreamBody(iter([CONTENT]), size=len(CONTENT))

    def close(self) -> None:
        """Do nothing."""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The folder of another version, which has the file."""
    (tmp_path / "old" / "part").mkdir(parents=True)
    (tmp_path / "old" / NAME).write_bytes(CONTENT)
    return tmp_path / "old"


@pytest.fixture
def new(tmp_path: Path) -> Path:
    """The folder of the version that is downloaded."""
    (tmp_path / "new" / ".phasebus").mkdir(parents=True)
    return tmp_path / "new"


def transfer(source: Source, old: Path, new: Path, file: RemoteFile = FILE) -> Transfer:
    """Complete the transfer of the file, and return it."""
    made = Transfer(source, file, new, Record(new), new / ".phasebus", [old.with_name("gone"), old])
    if made.inspect() or not made.hit:
        made.attempt()
    made.close()
    assert tree(new) == {NAME: CONTENT}
    assert not list((new / ".phasebus").glob("?" * 24 + ".*"))
    return made


@pytest.mark.parametrize("behind_a_link", [False, True])
def test_unchanged_file_is_linked_and_verified(old: Path, new: Path, *, behind_a_link: bool) -> None:
    if behind_a_link:  # as in the cache of huggingface_hub
        (old / NAME).rename(old.with_name("blob"))
        (old / NAME).symlink_to("../../blob")
    source = Source()
    made = transfer(source, old, new)
    assert (source.requests, made.hit, made.fetched, made.done) == (0, True, 0, len(CONTENT))
    assert (new / NAME).samefile(old / NAME)
    assert not (new / NAME).is_symlink()
    assert Record(new).is_verified(FILE, (new / NAME).stat())


def test_partial_file_of_an_earlier_process_is_removed(old: Path, new: Path) -> None:
    name = hashlib.sha256(NAME.encode()).hexdigest()[:24]
    (new / ".phasebus" / f"{name}.part").write_bytes(b"x")
    transfer(Source(), old, new)


def test_file_that_was_verified_in_the_other_version_is_not_read(
    old: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (old / ".phasebus").mkdir()
    Record(old).add(FILE, (old / NAME).stat(), DIGEST)
    monkeypatch.delattr(present_module, "hasher")
    assert transfer(Source(), old, new).hit


def test_other_content_of_the_same_size_is_downloaded(old: Path, new: Path) -> None:
    (old / NAME).write_bytes(other := CONTENT[:-1] + b"?")
    source = Source()
    made = transfer(source, old, new)
    assert (source.requests, made.hit, made.fetched) == (1, False, len(CONTENT))
    assert (old / NAME).read_bytes() == other


def test_files_that_are_known_to_be_others_are_not_read(old: Path, new: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (old / NAME).write_bytes(other := CONTENT[:-1] + b"?")
    (old / ".phasebus").mkdir()
    Record(old).add(FILE, (old / NAME).stat(), Digest("sha256", hashlib.sha256(other).hexdigest()))
    gone = old.with_name("gone")  # as huggingface_hub makes it
    blob = gone / "blobs" / hashlib.sha256(other).hexdigest()
    blob.parent.mkdir(parents=True)
    blob.write_bytes(other)
    (gone / "part").mkdir()
    (gone / NAME).symlink_to(f"../blobs/{blob.name}")
    monkeypatch.delattr(present_module, "hasher")
    source = Source()
    transfer(source, old, new)
    assert source.requests == 1


def test_file_that_two_versions_share_is_read_once(old: Path, new: Path) -> None:
    (old / NAME).write_bytes(CONTENT[:-1] + b"?")
    gone = old.with_name("gone")
    (gone / "part").mkdir(parents=True)
    (gone / NAME).hardlink_to(old / NAME)
    assert [folder for folder, _ in present_module.earlier_copies(FILE, [gone, old])] == [gone]


def test_file_is_downloaded_if_another_version_cannot_be_read(
    old: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "readv", broken)
    source = Source()
    made = transfer(source, old, new)
    assert (source.requests, made.hit, made.done) == (1, False, len(CONTENT))


def test_file_without_a_digest_is_downloaded(old: Path, new: Path) -> None:
    source = Source()
    transfer(source, old, new, RemoteFile(name=NAME, size=len(CONTENT)))
    assert source.requests == 1


def test_file_is_downloaded_where_there_are_no_hard_links(
    old: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_permitted(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", not_permitted)
    source = Source()
    made = transfer(source, old, new)
    assert (source.requests, made.hit) == (1, False)


def test_file_that_was_replaced_after_its_check_is_not_linked(old: Path, new: Path) -> None:
    checked = (old / NAME).stat()
    (old / "other").write_bytes(b"other")
    (old / "other").replace(old / NAME)
    with pytest.raises(FileNotFoundError):
        link(old / NAME, new / "temporary", new / "target", checked)
    assert tree(new) == {}


def test_snapshots_of_other_commits_are_found_the_newest_first(tmp_path: Path) -> None:
    snapshots = tmp_path / "models--org--name" / "snapshots"
    assert other_snapshots(tmp_path, "org/name", "0" * 40) == ()
    for number in range(8):
        folder = snapshots / (str(number) * 40)
        folder.mkdir(parents=True)
        os.utime(folder, (number, number))
    (snapshots / "main").mkdir()
    assert [each.name[0] for each in other_snapshots(tmp_path, "org/name", "6" * 40)] == ["7", "5", "4", "3", "2"]
