"""Downloads whose process is killed, whose disk is full, or that two processes want."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from phasebus.initializer import DownloadError, DownloadFinished, DownloadProgress, FileFinished
from phasebus.initializer.downloads import fetch
from phasebus.initializer.downloads.paths import free_bytes
from tests.support.downloads import QUICK, noise, safetensors, tree, watched
from tests.support.fault_proxy import FaultProxy, fault_proxy
from tests.support.hub_server import HubServer, Repository
from tests.support.programs import without
from tests.support.waiting import wait_until

pytestmark = pytest.mark.anyio

PROGRAM = """
import sys
import anyio
from phasebus.bus import Bus
from phasebus.initializer.downloads import fetch

async def main():
    async with Bus() as bus:
        await fetch(bus, sys.argv[1], destination=sys.argv[2])

anyio.run(main)
"""

FILES = {"config.json": b"{}", "model.safetensors": safetensors(40_000_000), "second.bin": noise(40_000_000, 1)}
TOTAL = sum(map(len, FILES.values()))


@contextmanager
def halfway(hub: HubServer, model: str, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], FaultProxy]]:
    """A process that has fetched half of a model, and gets no further while the proxy's gate is closed."""
    with fault_proxy(int(hub.url.rpartition(":")[2])) as proxy:
        proxy.limit = TOTAL // 2
        hub.delivery = proxy.url
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, model, str(folder)])
        try:
            assert proxy.halted.wait(60)
            yield process, proxy
        finally:
            process.kill()
            process.wait()


def kept(folder: Path) -> int:
    """Return the number of bytes of files, complete or partial, in a destination."""
    return sum(each.stat().st_size for each in folder.rglob("*") if each.suffix in {".bin", ".safetensors", ".part"})


async def test_start_after_a_kill_at_half_fetches_at_most_55_percent(hub: HubServer, tmp_path: Path) -> None:
    hub.repositories["org/name"] = Repository(FILES)
    folder = tmp_path / "there"
    with halfway(hub, "hf://org/name", folder) as (process, _):
        wait_until(lambda: kept(folder) > 0.45 * TOTAL, "what has come is written")
        assert tree(folder).items() <= FILES.items()
        process.send_signal(signal.SIGKILL)
        process.wait()
    hub.delivery = hub.url
    sent = hub.sent
    async with watched() as seen:
        result = await fetch(seen.bus, "org/name", destination=folder, settings=QUICK)
    assert result is not None
    assert tree(folder) == FILES
    assert hub.sent - sent <= 0.55 * TOTAL
    assert result.fetched <= 0.55 * TOTAL
    assert not {each.attributes["outcome"] for each in seen.of(FileFinished)} <= {"fetched"}


async def test_lock_of_a_killed_process_is_released(hub: HubServer, tmp_path: Path) -> None:
    hub.repositories["org/name"] = Repository(FILES)
    folder = tmp_path / "there"
    with halfway(hub, "org/name", folder) as (process, _):
        async with watched() as seen, anyio.create_task_group() as tasks:

            async def wait_for_the_other() -> None:
                await fetch(seen.bus, "org/name", destination=folder, settings=QUICK)

            tasks.start_soon(wait_for_the_other)
            with anyio.fail_after(60):
                while not seen.of(DownloadProgress):  # noqa: ASYNC110  # another process reports it
                    await anyio.sleep(0.01)
                hub.delivery = hub.url
                process.send_signal(signal.SIGKILL)
    assert tree(folder) == FILES


async def test_second_start_waits_and_shows_the_progress_of_the_first(hub: HubServer, tmp_path: Path) -> None:
    hub.repositories["org/name"] = Repository(FILES)
    folder = tmp_path / "there"
    with halfway(hub, "org/name", folder) as (process, proxy):
        async with watched() as seen, anyio.create_task_group() as tasks:

            async def wait_for_the_other() -> None:
                await fetch(seen.bus, "org/name", destination=folder, settings=QUICK)

            tasks.start_soon(wait_for_the_other)
            with anyio.fail_after(60):
                while not any(  # noqa: ASYNC110  # another process reports it
                    0.3 * TOTAL < each.done < TOTAL and each.total == TOTAL and each.attributes.get("waiting")
                    for each in seen.of(DownloadProgress)
                ):
                    await anyio.sleep(0.01)
                proxy.gate.set()
        assert await anyio.to_thread.run_sync(process.wait) == 0
    [finished] = seen.of(DownloadFinished)
    assert finished.attributes["bytes"] == 0
    assert finished.attributes["cache_hits"] == len(FILES)
    assert finished.attributes["waited"] is True
    assert proxy.passed < 1.1 * TOTAL
    assert tree(folder) == FILES


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of eight mebibytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        without(f"a small disk cannot be mounted here, which takes root: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_model_larger_than_the_disk_is_an_error_before_the_first_byte(hub: HubServer, small_disk: Path) -> None:
    hub.repositories["org/name"] = Repository(FILES)
    async with watched() as seen:
        with pytest.raises(DownloadError, match=rf"needs {TOTAL} bytes more in {small_disk}/there, and \d+ are free"):
            await fetch(seen.bus, "org/name", destination=small_disk / "there", settings=QUICK)
    assert not hub.of("/resolve/")


async def test_disk_that_fills_up_is_an_error_and_leaves_no_wrong_file(
    hub: HubServer, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when other programs write to it as well: the check before the start found enough space."""
    hub.repositories["org/name"] = Repository(FILES)
    monkeypatch.setattr("phasebus.initializer.downloads.download.free_bytes", lambda _: 10**12)
    async with watched() as seen:
        with pytest.raises(DownloadError, match=r"the disk of .* is full: .* needs \d+ bytes more"):
            await fetch(seen.bus, "org/name", destination=small_disk / "there", settings=QUICK)
    assert tree(small_disk / "there").items() <= FILES.items()
    assert (free_bytes(small_disk) or 0) >= 0


async def test_destination_that_cannot_be_written_is_an_error_at_once(hub: HubServer) -> None:
    hub.repositories["org/name"] = Repository(FILES)
    async with watched() as seen:
        with pytest.raises(DownloadError, match="/proc/nowhere cannot be written"):
            await fetch(seen.bus, "org/name", destination="/proc/nowhere", settings=QUICK)
