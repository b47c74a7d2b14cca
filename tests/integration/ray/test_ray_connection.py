from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading

import anyio
import psutil
import pytest
from anyio._backends._asyncio import WorkerThread
from anyio.to_thread import run_sync

from phasebus.initializer.ray.cluster import RayError, connected
from phasebus.initializer.ray.config import RayConfig


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_a_ray_of_our_own_lives_on_when_the_pool_retires_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    async with connected(RayConfig(num_cpus=1)) as local:
        assert local
        assert not [name for name in os.environ if "subreaper" in name]  # processes that Ray starts later are not ours
        assert await run_sync(exit_code_of, "raise SystemExit(3)") == 3
        children = psutil.Process().children(recursive=True)
        servers = [process for process in children if name_of(process) in ("raylet", "gcs_server")]
        assert len(servers) == 2
        names = [name_of(process) or "" for process in children]
        assert [name for name in names if "IDLE" in name] == []  # Ray's connection would wait for them
        monkeypatch.setattr(WorkerThread, "MAX_IDLE_TIME", 0)
        await retire_the_thread_used_last()
        gone, _ = psutil.wait_procs(servers, timeout=2)
        assert gone == []


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_signal_reaches_the_programs_own_handler_alone_while_ray_is_connected() -> None:
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    try:
        async with connected(RayConfig(num_cpus=1)):
            os.kill(os.getpid(), signal.SIGTERM)
            seconds, _ = signal.getitimer(signal.ITIMER_REAL)  # minutes, if it is the timeout of this test
            if aborts := 0 < seconds <= 3:
                signal.setitimer(signal.ITIMER_REAL, 0)
            assert (received, aborts) == ([signal.SIGTERM], False)
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_address_where_no_cluster_answers_is_named_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(RayError, match=rf"no Ray cluster answers at '{address}' within 0.5 s .*correct RAY_ADDRESS"):
        async with connected(RayConfig(connect_seconds=0.5)):
            pass


async def retire_the_thread_used_last() -> None:
    """Have the pool's thread that worked last end, as it does once it has had nothing to do for some seconds."""
    last = await run_sync(threading.current_thread)
    first, second = threading.Event(), threading.Event()
    async with anyio.create_task_group() as outer:
        async with anyio.create_task_group() as inner:
            inner.start_soon(wait_in_a_thread, first)  # in the last one
            await anyio.wait_all_tasks_blocked()
            outer.start_soon(wait_in_a_thread, second)  # in a new one, which is the last now
            await anyio.wait_all_tasks_blocked()
            first.set()
        second.set()
    await run_sync(threading.current_thread)  # which is when those are ended that have been idle for too long
    await run_sync(last.join)
    assert last not in threading.enumerate()


async def wait_in_a_thread(event: threading.Event) -> None:
    await run_sync(event.wait)


def name_of(process: psutil.Process) -> str | None:
    try:
        return process.name()
    except psutil.NoSuchProcess:  # it was one of a moment
        return None


def exit_code_of(program: str) -> int:
    return subprocess.run([sys.executable, "-c", program], check=False).returncode
