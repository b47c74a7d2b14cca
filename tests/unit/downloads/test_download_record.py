"""A verified file is not read again, unless something has changed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from phasebus.initializer.downloads import record as record_module
from phasebus.initializer.downloads.checks import Digest
from phasebus.initializer.downloads.protocol import RemoteFile
from phasebus.initializer.downloads.record import Record

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
    (tmp_path / ".phasebus").mkdir()
    record = Record(tmp_path)
    record.add(NAMED, file.stat(), DIGEST)
    record.add(PLAIN, file.stat(), DIGEST)
    return tmp_path / ".phasebus" / "record.jsonl"


def test_verified_file_is_known_to_the_next_start(log: Path, file: Path) -> None:
    assert Record(log.parent.parent).is_verified(NAMED, file.stat())
    assert Record(log.parent.parent).is_verified(PLAIN, file.stat())


def test_changed_file_is_not_verified(log: Path, file: Path) -> None:
    file.write_bytes(b"abd")
    assert not Record(log.parent.parent).is_verified(NAMED, file.stat())


def test_file_changed_at_the_source_is_not_verified(log: Path, file: Path) -> None:
    assert not Record(log.parent.parent).is_verified(
        dataclasses.replace(NAMED, digest=Digest("sha256", "b" * 64)), file.stat()
    )
    assert not Record(log.parent.parent).is_verified(dataclasses.replace(PLAIN, validator="v2"), file.stat())
    assert Record(log.parent.parent).expected_digest(dataclasses.replace(PLAIN, validator="v2")) is None


def test_file_without_digest_and_validator_is_never_verified(log: Path, file: Path) -> None:
    record = Record(log.parent.parent)
    nameless = dataclasses.replace(PLAIN, validator=None)
    record.add(nameless, file.stat(), DIGEST)
    assert not record.is_verified(nameless, file.stat())


def test_file_is_compared_once_after_another_boot(log: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_module, "boot_id", lambda: "another")
    record = Record(log.parent.parent)
    assert not record.is_verified(NAMED, file.stat())
    assert not record.is_verified(PLAIN, file.stat())
    assert record.expected_digest(PLAIN) == DIGEST
    record.add(PLAIN, file.stat(), DIGEST)
    assert Record(log.parent.parent).is_verified(PLAIN, file.stat())


def test_torn_lines_are_ignored(log: Path, file: Path) -> None:
    with log.open("a") as lines:
        lines.write('{"name": "a", "size"\nnull\n{}\n[1]\n')
    assert Record(log.parent.parent).is_verified(NAMED, file.stat())
