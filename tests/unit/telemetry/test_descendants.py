"""The processes that a process has started, also where /proc hides others."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from phasebus.telemetry.descendants import descendants


@pytest.fixture
def child() -> Iterator[psutil.Popen]:
    """A process that has started another one."""
    started = psutil.Popen(["sh", "-c", "sleep 60 & echo; wait"], stdout=subprocess.PIPE)
    started.stdout.readline()  # the inner one has been started
    family = [*started.children(), started]
    try:
        yield started
    finally:
        for each in family:
            each.kill()
        started.stdout.close()
        started.wait()


@pytest.mark.parametrize("error", [None, PermissionError(1, "Operation not permitted"), psutil.AccessDenied(1)])
def test_children_and_their_children_are_found_where_others_are_hidden(
    child: psutil.Popen, error: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = {each.pid for each in child.children()}
    assert len(inner) == 1
    if error is not None:

        def hidden(*_: object, **__: object) -> list[psutil.Process]:
            raise error

        monkeypatch.setattr(psutil.Process, "children", hidden)
    assert {each.pid for each in descendants(psutil.Process())} >= {child.pid, *inner}
    assert {each.pid for each in descendants(psutil.Process(child.pid))} == inner


def test_process_that_has_ended_has_no_descendants() -> None:
    ended = psutil.Popen([sys.executable, "-c", ""])
    process = psutil.Process(ended.pid)
    ended.wait()
    with pytest.raises(psutil.NoSuchProcess):
        descendants(process)
