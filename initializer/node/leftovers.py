"""The processes of an engine that outlive its command: after SIGKILL of its front end, vLLM's engine core and workers stay.

They hold the memory of the device, so the command could not be started again. Source: vllm-project/vllm, issue 55510.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import anyio

from phasebus.telemetry import Relay, StepNotice
from phasebus.telemetry.journal.process_start import process_start

_POLL_SECONDS = 0.1


class Leftovers:
    """The processes that have reported steps of a command's engine, and that run although the command has ended.

    Args:
        relay: Where they report them.
        seconds: How long they have to end in order.
    """

    def __init__(self, relay: Relay, seconds: float = 10.0) -> None:
        self._relay = relay
        self._seconds = seconds
        self._processes: dict[int, tuple[str, str]] = {}
        """The name and the start of each, by its id: an id may be used again."""

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Record the processes while the context lasts."""
        end = self._relay.listen(self._record)
        try:
            yield
        finally:
            end()

    async def end(self) -> list[str]:
        """End those that still run: by SIGTERM, and by SIGKILL if they do not end; return their names."""
        left = self._running()
        names = sorted(self._processes[pid][0] for pid in left)
        _send(left, signal.SIGTERM)
        with anyio.move_on_after(self._seconds):
            while self._running():  # noqa: ASYNC110  # they are no children of this process
                await anyio.sleep(_POLL_SECONDS)
        _send(self._running(), signal.SIGKILL)
        self._processes.clear()
        return names

    def _record(self, notice: object) -> None:
        if isinstance(notice, StepNotice) and notice.pid not in self._processes:
            start = process_start(notice.pid)
            if start is not None and os.getpid() != notice.pid and not _is_older(start):
                self._processes[notice.pid] = (notice.process, start)

    def _running(self) -> list[int]:
        return [pid for pid, (_, start) in self._processes.items() if process_start(pid) == start]


def _is_older(start: str) -> bool:
    """Return whether a process is not younger than this one, as a fork server that stays may be: it is not the command's."""
    own = process_start(os.getpid())
    return own is None or int(start.rsplit(maxsplit=1)[-1]) <= int(own.split()[-1])


def _send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(OSError):
            os.kill(pid, number)
