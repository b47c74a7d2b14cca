"""Forking a whole vLLM command from a fork server that stays, for `phasebus run` and `phasebus forkserver`."""

from __future__ import annotations

import logging
import os
import shlex
import time
from collections.abc import Mapping, Sequence
from typing import Any

from phasebus.initializer.engines.optional import ForkServerUse
from phasebus.initializer.engines.protocol import EngineError
from phasebus.initializer.engines.vllm.inside.forkserver.kept import client
from phasebus.initializer.engines.vllm.inside.forkserver.kept.address import Address, AddressError
from phasebus.initializer.engines.vllm.inside.forkserver.kept.client import ForkedCommand, NotForkedError
from phasebus.initializer.engines.vllm.inside.forkserver.kept.commands import PythonCommand, read_python_command
from phasebus.initializer.engines.vllm.inside.forkserver.kept.fingerprint import fingerprint
from phasebus.initializer.engines.vllm.inside.forkserver.kept.starting import start_server

logger = logging.getLogger("phasebus.engine")

_REPLACE_SECONDS = 10.0


def fork_command(
    path: str, arguments: Sequence[str], environment: Mapping[str, str], mask: frozenset[int], use: ForkServerUse
) -> ForkedCommand | None:
    """Return a command as a fork of the server; None if it has to be executed. One line says why, unless there is no server.

    Args:
        path: The path of its program.
        arguments: The program's name, and its arguments.
        environment: Its environment.
        mask: The signals that are blocked in it.
        use: Whether a server is started if there is none.
    """
    try:
        command = read_python_command(path, arguments, environment)
        if command is not None:
            return _forked(command, shlex.join(arguments), environment, mask, use)
        if use != "existing":
            logger.warning("the command is executed: a fork server of this Python's vLLM cannot run it")
    except (NotForkedError, OSError) as error:
        logger.warning("the command is executed, not forked: %s", error)
    except AddressError as error:
        if use != "existing":  # otherwise no server was asked for
            logger.warning("the command is executed, not forked: %s", error)
    return None


def begin_server(path: str, arguments: Sequence[str], environment: Mapping[str, str], use: ForkServerUse) -> int | None:
    """Start a server for a command, if there is none and `use` asks for one; return its process id if it still imports.

    Args:
        path: The path of the command's program.
        arguments: The program's name, and its arguments.
        environment: The command's environment.
        use: Whether a server is started.
    """
    if read_python_command(path, arguments, environment) is None:
        return None
    try:
        with client.opened(create=use != "existing") as address:
            if use != "existing" and _start(address, environment, use):
                return client.wait_for_process(address)
            return address.importing_process()
    except (NotForkedError, AddressError, OSError):
        return None  # `fork_command` reports it


def _start(address: Address, environment: Mapping[str, str], use: ForkServerUse) -> bool:
    owner, idle = (None, client.IDLE_SECONDS) if use == "keep" else (os.getpid(), None)
    return start_server(address, environment, owner=owner, idle_seconds=idle)


def _forked(
    command: PythonCommand, title: str, environment: Mapping[str, str], mask: frozenset[int], use: ForkServerUse
) -> ForkedCommand | None:
    with client.opened(create=use != "existing") as address:
        for attempt in range(2):
            if use != "existing":
                _start(address, environment, use)
            try:
                return client.fork_command(command, environment, title=title, mask=mask, address=address)
            except NotForkedError as error:
                if use == "existing" or not error.outdated or attempt:
                    raise
                client.ask(address, "stop")
                _wait_until_released(address)
    raise AssertionError  # the second attempt returns or raises


def _wait_until_released(address: Address) -> None:
    """Wait until a server that stops accepts requests no more."""
    deadline = time.monotonic() + _REPLACE_SECONDS
    while time.monotonic() < deadline:
        if (lock := address.lock()) is not None:
            os.close(lock)
            return
        time.sleep(0.02)


def start(idle_seconds: float | None) -> Mapping[str, Any]:
    """Start a server that stays, if there is none with this installation; return its state.

    Raises:
        EngineError: It cannot be started.
    """
    try:
        with client.opened() as address:
            state = client.ask(address, "status")
            if state is not None and state["fingerprint"] != fingerprint(os.environ):
                client.ask(address, "stop")
                _wait_until_released(address)
            start_server(address, os.environ, owner=None, idle_seconds=idle_seconds)
            return client.wait_until_imported(address)
    except (NotForkedError, AddressError, OSError) as error:
        raise EngineError(f"no fork server can be started: {error}") from error


def request(name: str) -> Mapping[str, Any] | None:
    """Return the state of the server that this process would use, after "status" or "stop"; None without one.

    Raises:
        EngineError: It does not answer.
    """
    try:
        with client.opened(create=False) as address:
            state = client.ask(address, name)
            if state is not None and name == "stop":
                _wait_until_released(address)
            return state
    except AddressError:
        return None
    except (NotForkedError, OSError) as error:
        raise EngineError(f"the fork server cannot be reached: {error}") from error
