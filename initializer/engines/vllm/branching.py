"""A fork server for the engine of one process of Ray's, itself a fork of a server that stays: it has nothing to import."""

from __future__ import annotations

import logging
import os
import socket
import threading
from typing import Final

from phasebus.initializer.engines.optional import ForkedCommand
from phasebus.initializer.engines.vllm.forking import NO_SERVER, applied_later, fork_program, use_in_ray
from phasebus.initializer.engines.vllm.inside.forkserver import begin, channel
from phasebus.initializer.engines.vllm.inside.forkserver.kept.address import AddressError
from phasebus.initializer.engines.vllm.inside.forkserver.kept.client import NotForkedError
from phasebus.initializer.engines.vllm.inside.forkserver.kept.commands import PythonCommand

logger = logging.getLogger("phasebus.engine")

_PROGRAM: Final = "phasebus.initializer.engines.vllm.inside.forkserver.branch"
_FIRST_NUMBER: Final = 200
"""The fork's descriptors have numbers from here on; the server has none so high."""

_forked: list[ForkedCommand] = []
"""The server ends what it has forked for a client that closes its connection, so that is kept open."""


def fork_server_from_kept() -> None:
    """Use a fork server that is a fork of one that stays, and begin that one if there is none. Return at once.

    Requests wait until it runs. If it cannot be forked, a line says why, and one is started as a process of its own.
    """
    try:
        opened = begin.open_channel()
    except (channel.ForkError, OSError) as error:
        logger.warning("no fork server, so vLLM spawns its processes: %s", error)
        return
    threading.Thread(target=_fork_or_start, args=opened, name="phasebus fork server", daemon=True).start()


def _fork_or_start(requests: socket.socket, clients: socket.socket, owner: int) -> None:
    try:
        _forked.append(_fork([requests.fileno(), clients.fileno(), owner]))
    except (NotForkedError, AddressError, OSError) as error:
        logger.warning("the fork server is no fork of one that stays: %s", error)
        try:
            begin.start_process(requests, clients, owner)
        except OSError as failure:
            logger.warning("no fork server, so vLLM spawns its processes: %s", failure)
    else:
        requests.close()
        os.close(owner)


def _fork(passed: list[int]) -> ForkedCommand:
    numbers = range(_FIRST_NUMBER, _FIRST_NUMBER + len(passed))
    program = PythonCommand(arguments=["-m", *map(str, numbers)], script=None, module=_PROGRAM, name="python")
    environment, _ = applied_later(os.environ)  # each fork applies the variables of its own start
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        descriptors = {0: nothing, 1: 1, 2: 2, **dict(zip(numbers, passed, strict=True))}
        use = use_in_ray(os.environ)
        forked = fork_program(program, environment, use, title="phasebus fork server", descriptors=descriptors)
    finally:
        os.close(nothing)
    if forked is None:
        raise NotForkedError(NO_SERVER)
    return forked
