"""Starting the process of an observed command: as a fork of a server that stays if possible, else by executing it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import anyio.to_thread

from phasebus.bus import Bus
from phasebus.initializer.engines.optional import CommandObserver, ForksCommands
from phasebus.initializer.engines.protocol import ENGINE_STEP, ForkServerUse
from phasebus.initializer.node.child import ChildProcess
from phasebus.initializer.node.execution import executable
from phasebus.telemetry.span_names import INNER_STEPS, LONGEST


async def start_process(
    child: ChildProcess,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    observer: CommandObserver,
    use: ForkServerUse | None,
    bus: Bus,
) -> None:
    """Start a command.

    Args:
        child: Runs it.
        arguments: The command and its arguments.
        environment: Its environment.
        observer: Observes its engine, and may fork it.
        use: Which server it is forked from; None for none.
        bus: Where the step of waiting for the server's imports is published.

    Raises:
        CommandNotStartedError: It cannot be executed.
    """
    is_forked = False
    if use is not None and isinstance(observer, ForksCommands):
        is_forked = await _fork(child, arguments, environment, observer, use, bus)
    if not is_forked:
        child.start(arguments, environment)


async def _fork(
    child: ChildProcess,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    observer: ForksCommands,
    use: ForkServerUse,
    bus: Bus,
) -> bool:
    """Start a command as a fork; return whether it is one."""
    path = executable(arguments[0])
    importing = await anyio.to_thread.run_sync(observer.begin_fork_server, path, arguments, environment, use)

    async def adopt_fork() -> bool:
        forked = await anyio.to_thread.run_sync(observer.fork, path, arguments, environment, child.mask, use)
        if forked is not None:
            child.adopt(forked)
        return forked is not None

    if importing is None:
        return await adopt_fork()
    attributes: dict[str, str | int] = {"process": "front_end", "pid": importing}
    async with bus.step(ENGINE_STEP, "import_engine", attributes=attributes | {INNER_STEPS: LONGEST}) as step:
        since_ns = time.time_ns()
        is_forked = await adopt_fork()
        await observer.publish_imports(bus, step=step.id, since_ns=since_ns, attributes=attributes)
    return is_forked
