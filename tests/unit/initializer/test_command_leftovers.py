"""The processes of an engine that outlive its command."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from phasebus.initializer.node.leftovers import Leftovers, _is_older
from phasebus.telemetry import StepNotice
from phasebus.telemetry.journal.process_start import process_start
from tests.support.waiting import wait_until

pytestmark = pytest.mark.anyio

ENDS = "import sys, time; print(flush=True); time.sleep(1000)"
IGNORES_SIGTERM = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(1000)"
)


@pytest.fixture
def orphan() -> Iterator[Callable[[str], int]]:
    """Starts a program that is not waited for until the end of the test; returns its id once it runs."""
    started: list[subprocess.Popen[bytes]] = []

    def start(code: str) -> int:
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process.pid

    yield start
    for process in started:
        process.kill()
        process.communicate()


def notice(pid: int, process: str = "EngineCore") -> StepNotice:
    return StepNotice(event="started", step="a" * 16, name="init_engine_core", time_ns=1, pid=pid, process=process)


def reported(*notices: object, seconds: float = 60.0) -> Leftovers:
    listeners: list[Callable[[object], None]] = []

    def listen(listener: Callable[[object], None]) -> Callable[[], None]:
        listeners.append(listener)
        return listeners.clear

    relay: Any = SimpleNamespace(listen=listen)
    leftovers = Leftovers(relay, seconds)
    with leftovers.recorded():
        for each in notices:
            listeners[0](each)
    return leftovers


@pytest.mark.parametrize(("code", "seconds"), [(ENDS, 60.0), (IGNORES_SIGTERM, 0.1)])
async def test_process_that_reported_a_step_and_still_runs_is_ended(
    orphan: Callable[[str], int], code: str, seconds: float
) -> None:
    pid = orphan(code)
    leftovers = reported(notice(pid), notice(pid), seconds=seconds)
    assert await leftovers.end() == ["EngineCore"]
    wait_until(lambda: process_start(pid) is None, "the process has ended")
    assert await leftovers.end() == []


async def test_processes_that_are_not_the_commands_are_left_alone(orphan: Callable[[str], int]) -> None:
    pid = orphan(ENDS)
    leftovers = reported(notice(os.getpid()), "no notice", notice(2**31 - 1))
    assert await leftovers.end() == []
    assert process_start(pid) is not None
    assert [_is_older(process_start(each) or "") for each in (os.getpid(), pid)] == [True, False]


async def test_process_that_has_the_id_of_one_that_ended_is_left_alone(orphan: Callable[[str], int]) -> None:
    pid = orphan(ENDS)
    leftovers = reported(notice(pid))
    name, start = leftovers._processes[pid]
    leftovers._processes[pid] = (name, f"{start}0")
    assert await leftovers.end() == []
    assert process_start(pid) is not None
