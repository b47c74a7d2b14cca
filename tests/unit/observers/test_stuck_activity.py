from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import httpx
import pytest

from phasebus.observers.stuck.activity import GONE, ProcessSampler
from phasebus.telemetry.own_threads import OWN_THREADS
from phasebus.telemetry.service import Server
from phasebus.telemetry.service.access import respond
from tests.support.waiting import wait_until


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    yield process
    process.kill()
    process.wait()


def test_stopped_process_is_stopped_itself_and_of_the_one_that_started_it(child: subprocess.Popen[bytes]) -> None:
    sampler = ProcessSampler()
    assert sampler.sample([child.pid])[child.pid].state == "alive"
    child.send_signal(signal.SIGSTOP)
    wait_until(lambda: ProcessSampler().sample([child.pid])[child.pid].state == "stopped", "it is stopped")
    assert child.pid in [pid for pid, _ in ProcessSampler().sample([os.getpid()])[os.getpid()].stopped]
    both = ProcessSampler().sample([os.getpid(), child.pid])
    assert child.pid not in [pid for pid, _ in both[os.getpid()].stopped]  # it is judged by itself


def test_process_that_has_ended_is_gone_before_and_after_it_is_waited_for(child: subprocess.Popen[bytes]) -> None:
    sampler = ProcessSampler()
    sampler.sample([child.pid])
    child.kill()
    wait_until(lambda: sampler.sample([child.pid])[child.pid].state == "gone", "it has ended")
    child.wait()
    assert sampler.sample([child.pid])[child.pid] == GONE


def test_work_of_a_child_that_has_ended_stays_counted() -> None:
    sampler = ProcessSampler()
    before = sampler.sample([os.getpid()])[os.getpid()].cpu
    subprocess.run([sys.executable, "-c", "for _ in range(4_000_000): pass"], check=True)
    assert sampler.sample([os.getpid()])[os.getpid()].cpu > before


@pytest.mark.parametrize("ended", [False, True])
def test_reads_of_the_threads_that_collect_evidence_do_not_count_as_work(tmp_path: Path, ended: bool) -> None:
    file = tmp_path / "large"
    file.write_bytes(bytes(5_000_000))
    sampler = ProcessSampler()

    def read_in(counted: AbstractContextManager[None]) -> int:
        """Return what counts as read of a file that another thread reads."""
        before = sampler.sample([os.getpid()])[os.getpid()].read
        read, sampled = threading.Event(), threading.Event()

        def run() -> None:
            with counted:
                file.read_bytes()
                read.set()
                if not ended:
                    sampled.wait()

        thread = threading.Thread(target=run)
        thread.start()
        read.wait()
        if ended:
            thread.join()
        after = sampler.sample([os.getpid()])[os.getpid()].read
        sampled.set()
        thread.join()
        return after - before

    assert read_in(OWN_THREADS.counted()) < 2_500_000
    assert read_in(nullcontext()) > 2_500_000


def test_what_the_http_service_does_counts_as_no_work_of_the_start(tmp_path: Path) -> None:
    file = tmp_path / "large"
    file.write_bytes(bytes(5_000_000))

    async def reads(scope: Any, receive: Any, send: Any) -> None:
        file.read_bytes()
        await respond(send, 200, "ok")

    server, sampler = Server(lambda: reads), ProcessSampler()
    server.start()
    try:
        httpx.get(server.url, timeout=60)  # imports what it needs
        before = sampler.sample([os.getpid()])[os.getpid()].read
        httpx.get(server.url, timeout=60)
        assert sampler.sample([os.getpid()])[os.getpid()].read - before < 2_500_000
    finally:
        server.close()


def test_process_that_collects_evidence_does_not_count_as_work(tmp_path: Path) -> None:
    file = tmp_path / "large"
    file.write_bytes(bytes(5_000_000))
    sampler = ProcessSampler()
    before = sampler.sample([os.getpid()])[os.getpid()].read
    with OWN_THREADS.counted_process():
        subprocess.run(["cat", str(file)], stdout=subprocess.DEVNULL, check=True)
    assert sampler.sample([os.getpid()])[os.getpid()].read - before < 2_500_000
    subprocess.run(["cat", str(file)], stdout=subprocess.DEVNULL, check=True)
    assert sampler.sample([os.getpid()])[os.getpid()].read - before > 2_500_000
