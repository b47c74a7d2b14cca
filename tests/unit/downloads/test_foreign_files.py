"""What others put in the place of a download's files is replaced or an error: it is never followed, and nothing waits."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from phasebus.initializer import DownloadError
from phasebus.initializer.downloads import fetch
from phasebus.initializer.downloads.sources.hub_cache import cached_snapshot
from phasebus.telemetry.files import open_regular, read_regular, replace_regular
from tests.support.downloads import QUICK, noise, tree, watched

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

SECRET = b"of another user"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # files are opened in a thread: the other downloads are tested on trio, too


FILES = {"config.json": b"{}", "weights.bin": noise(600_000)}
PART = sha256(b"weights.bin").hexdigest()[:24]


def link(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def dangling_link(path: Path, victim: Path) -> None:
    path.symlink_to(victim.with_name("created"))


def device(path: Path, victim: Path) -> None:
    path.symlink_to("/dev/zero")


def pipe(path: Path, victim: Path) -> None:
    os.mkfifo(path)


def folder(path: Path, victim: Path) -> None:
    path.mkdir()
    (path / "x").write_bytes(b"")


def listener(path: Path, victim: Path) -> None:
    with socket.socket(socket.AF_UNIX) as created:
        here = os.open(path.parent, os.O_RDONLY)
        try:
            created.bind(f"/proc/self/fd/{here}/{path.name}")
        finally:
            os.close(here)


def read_only(path: Path, victim: Path) -> None:
    path.write_bytes(SECRET)
    path.chmod(0o444)


def nonsense(path: Path, victim: Path) -> None:
    path.write_bytes(b"[" * 100_000 + b"\xff\n")


OBSTACLES = [link, dangling_link, device, pipe, folder, listener, read_only, nonsense]
PLACES = [
    "config.json",
    "weights.bin",
    ".phasebus",
    ".phasebus/lock",
    ".phasebus/status.json",
    f".phasebus/.status.json.{os.getpid()}.new",
    ".phasebus/record.jsonl",
    ".phasebus/inventory.json",
    f".phasebus/.inventory.json.{os.getpid()}.new",
    f".phasebus/{PART}.part",
    f".phasebus/{PART}.json",
    f".phasebus/.{PART}.json.{os.getpid()}.new",
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("obstacle", OBSTACLES)
async def test_download_replaces_what_is_in_its_place_or_fails(
    tmp_path: Path, obstacle: Callable[[Path, Path], None], place: str
) -> None:
    model, there, victim = tmp_path / "model", tmp_path / "there", tmp_path / "victim"
    for name, content in FILES.items():
        model.mkdir(exist_ok=True)
        (model / name).write_bytes(content)
    victim.write_bytes(SECRET)
    path = there / place
    path.parent.mkdir(parents=True)
    obstacle(path, victim)
    async with watched() as seen:
        failed = ""
        try:
            await fetch(seen.bus, str(model), destination=there, settings=QUICK)
        except DownloadError as error:
            failed = str(error)
    assert str(there) in failed or tree(there) == FILES
    assert victim.read_bytes() == SECRET
    assert not (tmp_path / "created").exists()


@pytest.mark.parametrize("obstacle", [link, device, pipe, folder, nonsense])
def test_cached_revision_is_read_from_a_regular_file_only(
    tmp_path: Path, obstacle: Callable[[Path, Path], None]
) -> None:
    commit = "c" * 40
    repository = tmp_path / "models--o--m"
    (repository / "refs").mkdir(parents=True)
    (repository / "snapshots" / commit).mkdir(parents=True)
    (tmp_path / "victim").write_text(commit)
    (repository / "refs" / "main").write_text(commit)
    assert cached_snapshot(tmp_path, "o/m", "main") is not None
    (repository / "refs" / "main").unlink()
    obstacle(repository / "refs" / "main", tmp_path / "victim")
    assert cached_snapshot(tmp_path, "o/m", "main") is None


@pytest.mark.parametrize("obstacle", [link, dangling_link, device, pipe, folder, listener])
def test_only_regular_files_are_opened(tmp_path: Path, obstacle: Callable[[Path, Path], None]) -> None:
    victim, path = tmp_path / "victim", tmp_path / "path"
    victim.write_bytes(SECRET)
    obstacle(path, victim)
    for flags in (os.O_RDONLY, os.O_WRONLY | os.O_CREAT, os.O_RDWR | os.O_CREAT | os.O_TRUNC):
        with pytest.raises(OSError):  # the number differs between obstacles
            open_regular(path, flags)
    with pytest.raises(OSError):
        read_regular(path, 100)
    if path.is_dir() and not path.is_symlink():
        with pytest.raises(OSError):
            replace_regular(path, b"new")
        assert sorted(tmp_path.iterdir()) == [path, victim]
    else:
        replace_regular(path, b"new")
        assert read_regular(path, 3) == b"new"
    assert victim.read_bytes() == SECRET


def test_file_of_another_user_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "path").write_bytes(b"")
    monkeypatch.setattr(os, "geteuid", lambda: 4_242)
    with pytest.raises(OSError, match="belongs to another user"):
        open_regular(tmp_path / "path", os.O_WRONLY, own=True)


def test_read_file_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "path").write_bytes(b"12345")
    assert read_regular(tmp_path / "path", 5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes"):
        read_regular(tmp_path / "path", 4)
