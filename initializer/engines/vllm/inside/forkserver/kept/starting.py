"""Starting a fork server that stays, as no child of the process that starts it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Mapping, Sequence
from multiprocessing import spawn, util
from pathlib import Path
from typing import Final

from phasebus.initializer.engines.vllm.inside.forkserver.kept.address import Address
from phasebus.initializer.engines.vllm.inside.forkserver.kept.environment import neutral_environment

_LISTENING_SECONDS: Final = 5.0
"""How long another process that has the lock may take until its server listens, or has ended."""

_POLL_SECONDS: Final = 0.005
_MODULE: Final = "phasebus.initializer.engines.vllm.inside.forkserver.kept.server"
_INTERMEDIATE: Final = """\
import os, sys
os.setsid()
if os.fork():
    os._exit(0)
kept = {0, 1, 2, *map(int, sys.argv[1].split(","))}
for number in map(int, os.listdir("/proc/self/fd")):
    if number not in kept:
        try:
            os.close(number)
        except OSError:
            pass
os.chdir("/")
os.nice(int(sys.argv[2]))
os.execv(sys.argv[3], sys.argv[3:])
"""
"""The program of a process between, so that the server is no child of this process and has no other of its descriptors."""


def start_server(
    address: Address,
    environment: Mapping[str, str],
    *,
    owner: int | None,
    idle_seconds: float | None,
    niceness: int = 0,
) -> bool:
    """Start a server, which imports beside this process; return False if there is one, which accepts requests.

    Args:
        address: Where it is found.
        environment: What it is started with, but for secrets.
        owner: A descriptor that becomes readable, or whose other end is closed, when it is to end: of a process (a pidfd), or
            of a pipe. The caller closes it. None for none.
        idle_seconds: How long it waits for a command before it ends, in seconds; None for ever.
        niceness: By how much its priority is lower than that of this process.

    Raises:
        OSError: It cannot be started.
    """
    deadline = time.monotonic() + _LISTENING_SECONDS
    while (lock := address.lock()) is None:  # held by a server, which begins or ends if it does not listen
        if address.is_listening() or time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    descriptors = [_moved(lock)]
    try:
        listener = address.listen()
        descriptors.append(_moved(listener.detach()))
        if owner is not None:
            descriptors.append(_moved(os.dup(owner)))
        owner_number = descriptors[2] if owner is not None else None
        arguments = ", ".join(
            map(repr, [str(address.folder), descriptors[1], descriptors[0], owner_number, idle_seconds])
        )
        program = f"import sys; sys.path[:] = filter(None, sys.path); from {_MODULE} import main; main({arguments})"
        command = [spawn.get_executable(), *_flags(), "-c", program]
        _start_detached(command, descriptors, environment, address.log, niceness)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    return True


def _moved(descriptor: int) -> int:
    """Return a descriptor above those of the standard streams: where one is closed, a new one gets its number."""
    if descriptor > 2:
        return descriptor
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(descriptor)


def _start_detached(
    arguments: Sequence[bytes | str | None],
    descriptors: Sequence[int],
    environment: Mapping[str, str],
    log: Path,
    niceness: int,
) -> None:
    """Start a process in a session of its own, which is no child of this one, with the root as its working folder.

    The process between makes the session: `os.posix_spawn` cannot in a Python that was built with a C library before glibc 2.26.
    """
    program = [os.fsdecode(each) for each in arguments if each is not None]
    output = _moved(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    nothing = _moved(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    try:
        python = os.fsdecode(spawn.get_executable())
        pid = os.posix_spawn(
            python,
            [python, "-I", "-S", "-c", _INTERMEDIATE, ",".join(map(str, descriptors)), str(niceness), *program],
            neutral_environment(environment),
            file_actions=[
                (os.POSIX_SPAWN_DUP2, nothing, 0),
                (os.POSIX_SPAWN_DUP2, output, 1),
                (os.POSIX_SPAWN_DUP2, output, 2),
                *((os.POSIX_SPAWN_DUP2, each, each) for each in descriptors),
            ],
            setsigmask=(),
            setsigdef=[each for each in signal.valid_signals() if each not in (signal.SIGKILL, signal.SIGSTOP)],
        )
    finally:
        os.close(output)
        os.close(nothing)
    with contextlib.suppress(ChildProcessError):  # this process ignores SIGCHLD: the system has removed it
        os.waitpid(pid, 0)


def _flags() -> list[str]:
    return util._args_from_interpreter_flags()  # type: ignore[attr-defined,no-any-return]  # noqa: SLF001
