"""A cancelled download leaves no thread that waits for a server, whatever it was waiting for."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest

from phasebus.initializer.downloads import fetch
from tests.support.downloads import QUICK, watched
from tests.support.raw_server import Behaviour, RawServer, raw_server, response
from tests.support.waiting import wait_until

pytestmark = pytest.mark.anyio

PATIENT = QUICK.model_copy(update={"stall_seconds": 600.0, "connect_seconds": 600.0})
"""Limits that are far longer than the test waits."""

SUMS = "".join(f"{hashlib.sha256(b'x').hexdigest()}  {name}.bin\n" for name in "abcdefghij").encode()


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHASEBUS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def threads() -> set[threading.Thread]:
    """Return the threads that downloads use."""
    return {each for each in threading.enumerate() if each.name.startswith(("phasebus download", "ThreadPoolExecutor"))}


async def cancel_once(reached: Callable[[], bool], model: str, destination: Path) -> None:
    """Start a download, cancel it once it has `reached` a state, and wait for its threads to end."""
    before = threads()
    async with watched() as seen, anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: fetch(seen.bus, model, destination=destination, settings=PATIENT))
        with anyio.fail_after(60):
            while not reached():  # noqa: ASYNC110  # it comes true in another thread
                await anyio.sleep(0.005)
            tasks.cancel_scope.cancel()
    with anyio.move_on_after(60):
        while threads() - before:  # noqa: ASYNC110
            await anyio.sleep(0.005)
    assert threads() - before == set()


def silent(server: RawServer, connection: socket.socket) -> None:
    """Answer nothing."""
    server.closed.wait()


def silent_after(*answers: bytes) -> Behaviour:
    """Return a behaviour that sends these answers, and then nothing."""

    def behave(server: RawServer, connection: socket.socket) -> None:
        if (number := len(server.heads)) <= len(answers):
            connection.sendall(answers[number - 1])
        else:
            server.closed.wait()

    return behave


SIZE = response(206, b"x", Content_Range="bytes 0-0/1000000", ETag='"1"')


@pytest.mark.parametrize(
    ("path", "behave", "requests"),
    [
        ("/model.bin", silent, 1),
        ("/model.bin", silent_after(SIZE), 2),
        ("/model.bin", silent_after(SIZE, response(body=b"some", Content_Length="1000000")), 2),
        ("/folder/", silent, 1),
        ("/folder/", silent_after(response(body=SUMS)), 9),
    ],
    ids=["size", "head of a file", "body of a file", "list of files", "sizes of many files"],
)
async def test_silent_server_holds_no_thread_of_a_cancelled_download(
    path: str, behave: Behaviour, requests: int, tmp_path: Path
) -> None:
    with raw_server(behave) as server:
        await cancel_once(lambda: len(server.heads) >= requests, f"{server.url}{path}", tmp_path / "there")


async def test_silent_hub_holds_no_thread_of_a_cancelled_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with raw_server(silent) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        await cancel_once(lambda: bool(server.heads), "org/name", tmp_path / "there")


async def test_silent_tls_handshake_holds_no_thread_of_a_cancelled_download(tmp_path: Path) -> None:
    with raw_server(silent) as server:
        address = server.url.replace("http:", "https:") + "/model.bin"
        await cancel_once(lambda: bool(server.connections), address, tmp_path / "there")


@pytest.fixture
def full_listener() -> Iterator[socket.socket]:
    """A socket that accepts no further connection, so that connecting to it takes minutes."""
    with contextlib.ExitStack() as held:
        listener = held.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        while True:
            client = held.enter_context(socket.socket())
            client.settimeout(0.2)
            try:
                client.connect(listener.getsockname())
            except TimeoutError:
                break
        yield listener


async def test_unfinished_connect_holds_no_thread_of_a_cancelled_download(
    full_listener: socket.socket, tmp_path: Path
) -> None:
    address = f"http://127.0.0.1:{full_listener.getsockname()[1]}/model.bin"
    before = threads()
    await cancel_once(lambda: bool(threads() - before), address, tmp_path / "there")


PROGRAM = """
import sys
import anyio
from phasebus.bus import Bus
from phasebus.initializer.downloads import DownloadSettings, fetch

async def main():
    patient = DownloadSettings(stall_seconds=600, connect_seconds=600)
    async with Bus() as bus:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: fetch(bus, sys.argv[1], destination=sys.argv[2], settings=patient))
                await anyio.to_thread.run_sync(sys.stdin.readline)
                scope.cancel()
    print("cancelled", flush=True)

anyio.run(main)
"""


@pytest.mark.parametrize("scheme", ["http", "s3"])
def test_process_of_a_cancelled_download_ends(scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with raw_server(silent) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
        model = "s3://bucket/prefix" if scheme == "s3" else f"{server.url}/model.bin"
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, model, str(tmp_path / "there")], stdin=subprocess.PIPE, text=True
        )
        try:
            wait_until(lambda: bool(server.heads), "the request arrives")
            process.communicate("\n", timeout=60)
            assert process.returncode == 0
        finally:
            process.kill()
            process.wait()
