"""Locks of destinations on file systems with and without them."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from pathlib import Path

import pytest

from phasebus.initializer.downloads.errors import DownloadError
from phasebus.initializer.downloads.locks import exclusive_access
from phasebus.initializer.downloads.paths import STATE

pytestmark = pytest.mark.anyio


async def no_wait(done: int, total: int | None) -> None:
    raise AssertionError("the lock is free")


async def test_lock_is_held_with_the_shared_folder_for_partial_files(tmp_path: Path) -> None:
    async with exclusive_access(tmp_path, no_wait) as partials:
        assert partials == tmp_path / STATE
        with (tmp_path / STATE / "lock").open() as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
async def test_process_has_partial_files_of_its_own_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    async with exclusive_access(tmp_path, no_wait) as first, exclusive_access(tmp_path, no_wait) as second:
        assert first is not None
        assert second is not None
        assert first.parent == second.parent == tmp_path / STATE
        assert first != second
        (first / "x.part").touch()
    assert [each.name for each in (tmp_path / STATE).iterdir()] == ["lock"]
    assert "has no locks" in caplog.text


async def test_private_folder_of_a_killed_process_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state, now = tmp_path / STATE, time.time()
    for name, age in {"unlocked-old": 90_000, "unlocked-new": 100}.items():
        (state / name).mkdir(parents=True)
        (state / name / "x.part").touch()
        for path in (state / name / "x.part", state / name):
            os.utime(path, (now - age, now - age))

    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, "not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    async with exclusive_access(tmp_path, no_wait):
        pass
    assert sorted(each.name for each in state.iterdir()) == ["lock", "unlocked-new"]


async def test_folder_that_cannot_be_created_is_named_with_the_variables_that_move_it() -> None:
    with pytest.raises(
        DownloadError, match=r"/dev/null/cache cannot be written: Not a directory; .* HF_HOME for the hub"
    ):
        async with exclusive_access(Path("/dev/null/cache"), no_wait):
            pass
