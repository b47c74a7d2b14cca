"""The clients of a fork server that stays: a start that asks for its command, and `phasebus forkserver`."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from phasebus.initializer.engines.vllm.inside.forkserver.caller import Caller
from phasebus.initializer.engines.vllm.inside.forkserver.kept import messages
from phasebus.initializer.engines.vllm.inside.forkserver.kept.address import Address
from phasebus.initializer.engines.vllm.inside.forkserver.kept.commands import PythonCommand
from phasebus.initializer.engines.vllm.inside.forkserver.kept.fingerprint import fingerprint
from phasebus.telemetry.files import read_regular
from phasebus.telemetry.folders import runtime_folder

IDLE_SECONDS: Final = 3600.0
"""How long a server without a command stays by default, in seconds."""

_BEGIN_SECONDS: Final = 180.0
"""How long a command may take until it runs, if the server is still importing."""

_ANSWER_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.1


class NotForkedError(Exception):
    """Raised when a command is not forked; it can be executed.

    Attributes:
        outdated: Whether the server has imported something else than the command needs.
    """

    def __init__(self, reason: str, *, outdated: bool = False) -> None:
        self.outdated = outdated
        super().__init__(reason)


class ForkedCommand:
    """A command that runs in a fork of the server.

    Args:
        connection: Where its end is reported.
        process: Its pidfd.
        pid: Its process id.
    """

    def __init__(self, connection: socket.socket, process: int, pid: int) -> None:
        self._connection = connection
        self._process = process
        self.pid = pid

    def send_signal(self, number: int, *, group: bool = False) -> None:
        """Send it a signal; `group`: as a terminal does, to the processes of its group, too."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, 0)
            if group:
                os.killpg(self.pid, number)
            else:
                signal.pidfd_send_signal(self._process, number)

    def wait(self) -> int:
        """Return its exit code, or the negative number of the signal that ended it, once it has ended.

        If the server was killed, the code is the one that the command has announced itself, or 255.
        """
        announced = 255
        while True:
            waiting = select.poll()
            waiting.register(self._process, select.POLLIN)
            waiting.register(self._connection, select.POLLIN)
            waiting.poll()
            try:
                message, descriptors = messages.receive(self._connection, time.monotonic() + _ANSWER_SECONDS)
            except messages.MessageError:
                waiting.unregister(self._connection)
                waiting.poll()
                return announced
            for descriptor in descriptors:
                os.close(descriptor)
            if isinstance(code := message.get("ended"), int):
                return code
            if isinstance(code := message.get("ending"), int):
                announced = code % 256

    def close(self) -> None:
        """Release the connection and the pidfd; it has ended."""
        self._connection.close()
        os.close(self._process)


def fork_command(
    command: PythonCommand,
    environment: Mapping[str, str],
    *,
    title: str,
    mask: frozenset[int],
    address: Address,
    seconds: float | None = None,
    descriptors: Mapping[int, int] | None = None,
) -> ForkedCommand | None:
    """Return a command that runs in a fork of the server; None if there is no server.

    Args:
        command: What it runs.
        environment: Its environment.
        title: Its command line, as the system shows it.
        mask: The signals that are blocked in it.
        address: Where the server is.
        seconds: How long the fork may take, in seconds; None for a default, which allows for imports that have not ended.
        descriptors: The descriptors that it gets, by the number that each has there; None for those of an executed command.

    Raises:
        NotForkedError: The server refuses, does not answer, or has died.
    """
    if descriptors is None:
        descriptors = {number: number for number in _inherited()}
    connection = address.connect()
    if connection is None:
        return None
    process = None
    try:
        body = _body(command, environment, title, mask, list(descriptors))
        priority = os.getpriority(os.PRIO_PROCESS, 0)
        message = {"request": "fork", "fingerprint": fingerprint(environment), "priority": priority}
        folder, file = os.open(".", os.O_PATH | os.O_CLOEXEC), messages.body_file(body)
        try:
            messages.send(connection, message, [file, folder, *descriptors.values()])
        finally:
            os.close(file)
            os.close(folder)
        if seconds is None:
            seconds = _BEGIN_SECONDS if address.is_importing() else _ANSWER_SECONDS
        deadline = time.monotonic() + seconds
        pid, begun = 0, False
        while not begun or process is None:
            answer, received = messages.receive(connection, deadline)
            if "refused" in answer:
                raise NotForkedError(str(answer["refused"]), outdated=bool(answer.get("outdated")))
            if "ended" in answer:
                raise NotForkedError("the fork has ended before its work")
            if "pid" in answer and len(received) == 1:
                pid, process = int(answer["pid"]), received[0]
            begun = begun or "begun" in answer
        return ForkedCommand(connection, process, pid)
    except (messages.MessageError, OSError) as error:
        _abandon(connection, process)
        raise NotForkedError(str(error)) from error
    except BaseException:
        _abandon(connection, process)
        raise


def wait_for_process(address: Address, seconds: float = 10.0) -> int | None:
    """Return the id of a server's process that has just been started; None if it is not known after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (process := address.importing_process()) is not None:
            return process
        if not address.is_importing():
            return None
        time.sleep(_POLL_SECONDS)
    return None


def ask(address: Address, request: str) -> Mapping[str, Any] | None:
    """Return the answer of the server: its state after "status" or "stop", or its "variables"; None if there is no server.

    Raises:
        NotForkedError: It does not answer.
    """
    connection = address.connect()
    if connection is None:
        return None
    with connection:
        messages.send(connection, {"request": request})
        try:
            state, descriptors = messages.receive(connection, time.monotonic() + _ANSWER_SECONDS)
        except messages.MessageError as error:
            raise NotForkedError(str(error)) from error
        for descriptor in descriptors:
            os.close(descriptor)
        if "refused" in state:
            raise NotForkedError(str(state["refused"]))
        return state


def wait_until_imported(address: Address, seconds: float = _BEGIN_SECONDS) -> Mapping[str, Any]:
    """Return the state of the server once it has imported.

    Raises:
        NotForkedError: It has ended, or has not imported after `seconds`.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        state = ask(address, "status")
        if state is None:
            raise NotForkedError(f"it has ended: {_last_line(address.log)}")
        if state["imported"]:
            return state
        time.sleep(_POLL_SECONDS)
    raise NotForkedError(f"it has not imported after {seconds:g} s")


def _last_line(log: Path) -> str:
    lines = read_regular(log, 1_000_000).decode(errors="replace").splitlines()
    return lines[-1] if lines else "its log is empty"


@contextmanager
def opened(*, create: bool = True, environment: Mapping[str, str] = os.environ) -> Iterator[Address]:
    """Give the address of this process's server, and release it.

    Args:
        create: Whether its folder is made if it does not exist.
        environment: The environment that names the folder.

    Raises:
        AddressError: The folder cannot be used.
    """
    address = Address(runtime_folder(environment), create=create)
    try:
        yield address
    finally:
        address.close()


def _body(
    command: PythonCommand, environment: Mapping[str, str], title: str, mask: frozenset[int], numbers: Sequence[int]
) -> dict[str, Any]:
    caller = asdict(replace(Caller.this_process(), environment={}, mask=mask))
    caller["oom_score_adj"] = int(Path("/proc/self/oom_score_adj").read_text())
    for name in ("cpus", "mask", "ignored"):
        caller[name] = sorted(caller[name])
    return {
        **asdict(command),
        "title": title,
        "environment": dict(environment),
        "caller": caller,
        "numbers": list(numbers),
        "session": os.getsid(0),
        "group": os.getpgrp(),
    }


def _inherited() -> list[int]:
    """Return the descriptors that an executed command has: the standard streams, and other inheritable ones.

    Raises:
        NotForkedError: A standard stream is closed.
    """
    numbers = []
    for number in sorted(int(path.name) for path in Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(OSError):
            if os.get_inheritable(number):
                numbers.append(number)
    if numbers[:3] != [0, 1, 2]:
        raise NotForkedError("a standard stream is closed")
    if len(numbers) > messages.MAX_DESCRIPTORS - 2:
        raise NotForkedError(f"the command inherits {len(numbers)} descriptors")
    return numbers


def _abandon(connection: socket.socket, process: int | None) -> None:
    if process is not None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, signal.SIGKILL)
        os.close(process)
    connection.close()
