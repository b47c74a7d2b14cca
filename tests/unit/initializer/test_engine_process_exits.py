"""The exits of an engine's processes: reporting them changes nothing for the program that started these."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from multiprocessing import popen_fork
from types import SimpleNamespace
from typing import Any

import pytest

from phasebus.initializer.engines.vllm.inside import processes
from phasebus.initializer.engines.vllm.inside.ranks import ProcessIdentity
from tests.support.waiting import wait_until


class Child:
    """A process that runs until it reads its exit code, and the object that multiprocessing keeps of it."""

    def __init__(self) -> None:
        child_input, self._end = os.pipe()
        self.sentinel, output = os.pipe()
        actions = [(os.POSIX_SPAWN_DUP2, child_input, 0), (os.POSIX_SPAWN_DUP2, output, 1)]
        self.popen: Any = object.__new__(popen_fork.Popen)
        command = ["sh", "-c", "read code; exit $code"]
        self.popen.pid = os.posix_spawnp("sh", command, os.environ, file_actions=actions)
        self.popen.sentinel, self.popen.returncode, self.popen.finalizer = self.sentinel, None, None
        os.close(child_input)
        os.close(output)
        self.process: Any = SimpleNamespace(pid=self.popen.pid, _popen=self.popen, name="engine")

    def exit(self, code: int) -> None:
        os.write(self._end, b"%d\n" % code)

    def close(self) -> None:
        os.close(self._end)
        os.close(self.sentinel)


@pytest.fixture
def child() -> Iterator[Child]:
    child = Child()
    yield child
    child.close()


def test_a_process_can_be_polled_while_another_thread_joins_it(child: Child) -> None:
    notices: list[Any] = []
    reporter: Any = SimpleNamespace(send=notices.append)
    processes._report_exit(reporter, child.process, ProcessIdentity("EngineCore"))
    joins = threading.Event()
    codes: list[int | None] = []

    def join() -> None:
        joins.set()
        codes.append(child.popen.wait())

    joining = threading.Thread(target=join)
    joining.start()
    joins.wait(60)
    polled: list[int | None] = []
    polling = threading.Thread(target=lambda: polled.extend(child.popen.poll() for _ in range(1000)), daemon=True)
    polling.start()
    polling.join(5)
    answered = not polling.is_alive()
    child.exit(3)
    joining.join(60)
    assert answered
    assert set(polled) == {None}
    assert codes == [3]
    wait_until(lambda: bool(notices), "a notice")
    assert [notice["attributes"]["exit_code"] for notice in notices] == [3]


@pytest.mark.parametrize("traceparent", ["", "nonsense", "a-b-c-d-e-f"])
def test_a_process_starts_whatever_traceparent_the_program_has_set(
    traceparent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACEPARENT", traceparent)
    assert processes._start_step(1, ProcessIdentity("EngineCore"))["pid"] == 1
