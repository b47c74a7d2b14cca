"""The connection to a fork server: a socket without an address, which only processes of the same start have."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import time
from collections.abc import Sequence
from multiprocessing import resource_tracker
from typing import Final

BEGUN: Final = -(2**40)
"""What a fork sends once it runs the requested process; no process id and no exit code has this value."""

RELEASE: Final = b"release"
"""What a server is sent once no process will be forked any more."""

MAX_DESCRIPTORS: Final = 250
"""The kernel passes 253 in one message (SCM_MAX_FD)."""

_NUMBER: Final = struct.Struct("q")

_requests: socket.socket | None = None


class ForkError(Exception):
    """Raised when a process cannot be forked; it can be spawned."""


def use(requests: socket.socket | None) -> None:
    """Use a fork server from now on.

    Args:
        requests: The clients' end of its socket; None for no fork server.
    """
    global _requests  # noqa: PLW0603  # a process has one fork server, and its forks have the same
    _requests = requests


def is_available() -> bool:
    """Return whether this process has a fork server."""
    return _requests is not None


def request_fork(descriptors: Sequence[int]) -> tuple[int, int]:
    """Ask the server for a process; return where its numbers arrive, and where its pickled data is written to.

    Args:
        descriptors: The descriptors that the process gets.

    Raises:
        ForkError: There is no server, it has died, or it does not receive requests.
    """
    if _requests is None:
        raise ForkError("there is no fork server")
    if len(descriptors) > MAX_DESCRIPTORS - 3:
        raise ForkError(f"the process needs {len(descriptors)} descriptors")
    numbers, child_numbers = os.pipe()
    child_data, data = os.pipe()
    try:
        tracker = resource_tracker.getfd()
        assert tracker is not None  # noqa: S101  # it has been started
        passed = [child_data, child_numbers, tracker, *descriptors]
        socket.send_fds(_requests, [b"fork"], passed, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    except OSError as error:
        os.close(numbers)
        os.close(data)
        raise ForkError(f"the fork server does not answer: {error.strerror}") from error
    finally:
        os.close(child_data)
        os.close(child_numbers)
    return numbers, data


def release() -> None:
    """Let the server release its memory: this process, and so its engine, asks for no process any more."""
    global _requests  # noqa: PLW0603  # as in `use`
    if _requests is None:
        return
    with contextlib.suppress(OSError):  # it has ended
        _requests.send(RELEASE, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    _requests = None


def read_number(descriptor: int, deadline: float) -> int:
    """Return the next number that arrives.

    Args:
        descriptor: Where it arrives.
        deadline: When to give up, on the monotonic clock.

    Raises:
        ForkError: None arrived in time, or the sender has died.
    """
    received = b""
    while len(received) < _NUMBER.size:
        _wait(descriptor, select.POLLIN, deadline)
        part = os.read(descriptor, _NUMBER.size - len(received))
        if not part:
            raise ForkError("the fork server has died")
        received += part
    return int(_NUMBER.unpack(received)[0])


def write_number(descriptor: int, number: int) -> None:
    """Write a number; a reader that is gone is no error."""
    try:
        os.write(descriptor, _NUMBER.pack(number))  # a pipe takes so few bytes at once
    except BrokenPipeError:
        return


def write_all(descriptor: int, data: memoryview, deadline: float) -> None:
    """Write `data` to a pipe until `deadline`.

    Raises:
        ForkError: It is not read in time, or its reader has died.
    """
    os.set_blocking(descriptor, False)
    while data:
        _wait(descriptor, select.POLLOUT, deadline)
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            continue
        except BrokenPipeError as error:
            raise ForkError("the fork has died") from error


def _wait(descriptor: int, event: int, deadline: float) -> None:
    waiting = select.poll()
    waiting.register(descriptor, event)
    if not waiting.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise ForkError("the fork server does not answer")
