"""What was checked is not checked again, unless there is a reason."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from phasebus.initializer.downloads import record as record_module
from phasebus.initializer.downloads.checks import Digest
from phasebus.initializer.downloads.record import Record
from phasebus.initializer.downloads.sources.protocol import RemoteFile

DIGEST = Digest("sha256", "a" * 64)
NAMED = RemoteFile(name="a", size=3, digest=DIGEST, validator="v1")
PLAIN = RemoteFile(name="b", size=3, validator="v1")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    return path


@pytest.fixture
def log(tmp_path: Path, file: Path) -> Path:
    record = Record(tmp_path / "record.jsonl")
    record.add(NAMED, file.stat(), DIGEST)
    record.add(PLAIN, file.stat(), DIGEST)
    return tmp_path / "record.jsonl"


def test_what_was_checked_is_known_to_the_next_start(log: Path, file: Path) -> None:
    assert Record(log).knows(NAMED, file.stat())
    assert Record(log).knows(PLAIN, file.stat())


def test_a_file_that_was_touched_is_not_known(log: Path, file: Path) -> None:
    file.write_bytes(b"abd")
    assert not Record(log).knows(NAMED, file.stat())


def test_a_file_that_the_source_has_changed_is_not_known(log: Path, file: Path) -> None:
    assert not Record(log).knows(dataclasses.replace(NAMED, digest=Digest("sha256", "b" * 64)), file.stat())
    assert not Record(log).knows(dataclasses.replace(PLAIN, validator="v2"), file.stat())
    assert Record(log).digest_of(dataclasses.replace(PLAIN, validator="v2")) is None


def test_a_file_that_nothing_tells_apart_is_never_known(log: Path, file: Path) -> None:
    record = Record(log)
    nameless = dataclasses.replace(PLAIN, validator=None)
    record.add(nameless, file.stat(), DIGEST)
    assert not record.knows(nameless, file.stat())


def test_after_another_boot_a_file_is_compared_with_what_it_was(
    log: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_module, "boot", lambda: "another")
    record = Record(log)
    assert not record.knows(NAMED, file.stat())
    assert not record.knows(PLAIN, file.stat())
    assert record.digest_of(PLAIN) == DIGEST
    record.add(PLAIN, file.stat(), DIGEST)
    assert Record(log).knows(PLAIN, file.stat())


def test_lines_that_are_torn_count_for_nothing(log: Path, file: Path) -> None:
    with log.open("a") as lines:
        lines.write('{"name": "a", "size"\nnull\n{}\n[1]\n')
    assert Record(log).knows(NAMED, file.stat())
