"""Forking a whole process of vLLM's from a fork server that stays: a command of `phasebus run`, or an engine of a node."""

from __future__ import annotations

import logging
import os
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from phasebus.initializer.engines.protocol import EngineError, ForkServerUse
from phasebus.initializer.engines.vllm.inside.forkserver.kept import client
from phasebus.initializer.engines.vllm.inside.forkserver.kept.address import Address, AddressError
from phasebus.initializer.engines.vllm.inside.forkserver.kept.client import ForkedCommand, NotForkedError
from phasebus.initializer.engines.vllm.inside.forkserver.kept.commands import PythonCommand, read_python_command
from phasebus.initializer.engines.vllm.inside.forkserver.kept.environment import differences
from phasebus.initializer.engines.vllm.inside.forkserver.kept.fingerprint import fingerprint
from phasebus.initializer.engines.vllm.inside.forkserver.kept.starting import start_server
from phasebus.initializer.ray.cluster import kills_orphans

logger = logging.getLogger("phasebus.engine")

_WORKER_NICENESS: Final = 15
"""By default, and what Ray's workers add to the niceness of Ray."""

_REPLACE_SECONDS = 10.0
_APPLIED_LATER: Final = ("OMP_NUM_THREADS", "RAY_")
"""The first letters of variables that Ray sets for a process. A fork can apply the first to the loaded libraries
(`imported.apply_changes`), and needs none of Ray's."""


NO_SERVER: Final = "there is none, and Ray would kill one that is started here with the process that starts it"
"""Why a process of Ray's has no server that stays."""


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
            return fork_program(command, environment, use, title=shlex.join(arguments), mask=mask)
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
    if use == "keep":
        return start_server(address, environment, owner=None, idle_seconds=client.IDLE_SECONDS)
    owner = os.pidfd_open(os.getpid())
    try:
        return start_server(address, environment, owner=owner, idle_seconds=None)
    finally:
        os.close(owner)


def fork_program(
    program: PythonCommand,
    environment: Mapping[str, str],
    use: ForkServerUse,
    *,
    title: str,
    mask: frozenset[int] = frozenset(),
    descriptors: Mapping[int, int] | None = None,
) -> ForkedCommand | None:
    """Return a program as a fork of the server; None if there is no server, and `use` asks for none.

    A server that does not fit is replaced if `use` asks for one. It may block for as long as imports take.

    Args:
        program: What it runs.
        environment: Its environment.
        use: Whether a server is started if there is none.
        title: Its command line, as the system shows it.
        mask: The signals that are blocked in it.
        descriptors: The descriptors that it gets, by the number that each has there; None for those of an executed command.

    Raises:
        NotForkedError: It cannot be forked.
        AddressError: The folder of the server cannot be used.
        OSError: The server cannot be started.
    """
    with client.opened(create=use != "existing") as address:
        for attempt in range(2):
            if use != "existing":
                _start(address, environment, use)
            try:
                return client.fork_command(
                    program, environment, title=title, mask=mask, address=address, descriptors=descriptors
                )
            except NotForkedError as error:
                if use == "existing" or not error.outdated or attempt:
                    raise
                client.ask(address, "stop")
                _wait_until_released(address)
    raise AssertionError  # the second attempt returns or raises


def applied_later(environment: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return what a fork server has to have imported with, and the variables that its fork applies itself."""
    later = {name: value for name, value in environment.items() if name.startswith(_APPLIED_LATER)}
    if environment.get("LD_PRELOAD") == "":  # Ray sets it so, which is the same as without it
        later["LD_PRELOAD"] = ""
    return {name: value for name, value in environment.items() if name not in later}, later


def use_in_ray(environment: Mapping[str, str]) -> ForkServerUse:
    """Return how a process of Ray's uses a server that stays: it starts one only if Ray lets that live."""
    return "existing" if kills_orphans(environment) else "keep"


def importing_process(environment: Mapping[str, str]) -> int | None:
    """Return the id of the server's process while it imports; None without one, or once it has imported.

    Args:
        environment: The environment that names the server's folder.
    """
    try:
        with client.opened(create=False, environment=environment) as address:
            return address.importing_process()
    except AddressError:
        return None


def server_imports() -> Sequence[Mapping[str, Any]]:
    """Return the longest imports of the server that this process uses, as `ImportTimes.longest` does; none without one."""
    try:
        with client.opened(create=False) as address:
            state = client.ask(address, "status")
    except (NotForkedError, AddressError, OSError):
        return ()
    return () if state is None else tuple(state["imports"])


def begin_kept(environment: Mapping[str, str]) -> None:
    """Start a server that stays, if there is none that fits; return while it imports, and never raise.

    In a process of Ray's, none is started if Ray would kill it with that process.

    Args:
        environment: What it is started with, but for secrets.
    """
    if kills_orphans(os.environ):
        return
    try:
        with client.opened(environment=environment) as address:
            environment, _ = applied_later(environment)
            if _start(address, environment, "keep") or address.is_importing():
                return
            state = client.ask(address, "status")
            if state is not None and _is_outdated(address, state, environment):
                client.ask(address, "stop")
                _wait_until_released(address)
                _start(address, environment, "keep")
    except (NotForkedError, AddressError, OSError) as error:
        logger.warning("no fork server that stays: %s", error)


def _is_outdated(address: Address, state: Mapping[str, Any], environment: Mapping[str, str]) -> bool:
    """Return whether a server with this state has imported something else than a command with `environment` would."""
    if state["fingerprint"] != fingerprint(environment) or state.get("edited_file") is not None:
        return True
    variables = client.ask(address, "variables") if state["imported"] else None
    return variables is not None and bool(differences(environment, variables))


@contextmanager
def begun_server(environment: Mapping[str, str]) -> Iterator[None]:
    """Start a server, if there is none with this installation, which imports beside the block, and ends after it; never raise.

    Commands that were forked from it by then go on. It has the priority of Ray's workers, which request the forks: Ray's own
    processes come first, as a raylet gives up if its agents do not run within 15 s (2.60, ``WaitForDashboardAgentPorts``).

    Args:
        environment: What it is started with, but for secrets.
    """
    owner = None
    niceness = environment.get("RAY_worker_niceness", "")
    try:
        with client.opened(environment=environment) as address:
            ends, owner = os.pipe()
            try:
                start_server(
                    address,
                    applied_later(environment)[0],
                    owner=ends,
                    idle_seconds=None,
                    niceness=int(niceness) if niceness.isdecimal() else _WORKER_NICENESS,
                )
            finally:
                os.close(ends)
    except (AddressError, OSError):
        pass  # the engine's actor starts a server of its own
    try:
        yield
    finally:
        if owner is not None:
            os.close(owner)


def _wait_until_released(address: Address) -> None:
    """Wait until a server that stops accepts requests no more."""
    deadline = time.monotonic() + _REPLACE_SECONDS
    while time.monotonic() < deadline:
        if (lock := address.lock()) is not None:
            os.close(lock)
            return
        time.sleep(0.02)


def start(idle_seconds: float | None) -> Mapping[str, Any]:
    """Start a server that stays, if there is none that fits this process; return its state.

    Raises:
        EngineError: It cannot be started.
    """
    try:
        with client.opened() as address:
            state = client.ask(address, "status")
            if state is not None and _is_outdated(address, state, os.environ):
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
