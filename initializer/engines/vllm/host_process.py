"""The program of a fork that runs an engine for an actor: the actor calls the methods of its `EngineHost`.

The connection has no address, and both ends are the same user's, so messages are pickled. The process ends with the
connection, whatever its engine does at that moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import select
import signal
import socket
import struct
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from phasebus.initializer.engines.protocol import Serving
    from phasebus.initializer.engines.vllm.engine_host import EngineHost

_LENGTH: Final = struct.Struct("!Q")
_STOP_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstMessage:
    """The first message to the process.

    Attributes:
        serving: How the engine serves, and the machine's address; None without a server.
        environment: Variables that are applied to the loaded libraries.
        path: Where modules are found (`sys.path`).
    """

    serving: tuple[Serving, str] | None
    environment: Mapping[str, str]
    path: Sequence[str]


def send_first(connection: socket.socket, message: FirstMessage) -> None:
    """Send the first message; a receiver that is gone is found by the first call."""
    content = pickle.dumps(message)
    with contextlib.suppress(OSError):
        connection.sendall(_LENGTH.pack(len(content)) + content)


def write_message(writer: asyncio.StreamWriter, message: object) -> None:
    """Queue a message."""
    content = pickle.dumps(message)
    writer.write(_LENGTH.pack(len(content)) + content)


async def read_message(reader: asyncio.StreamReader) -> Any:
    """Return the next message; None once the other process has ended."""
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        return pickle.loads(await reader.readexactly(length))  # noqa: S301  # of the process at the other end
    except (asyncio.IncompleteReadError, OSError):
        return None


def main(connection: socket.socket, listener: socket.socket | None) -> None:
    """Run the engine until the actor ends; then end, and end every process that the engine has started.

    Args:
        connection: The connection to the actor.
        listener: The bound socket of the engine's server; None without a server.
    """
    from phasebus.initializer.engines.vllm.engine_host import EngineHost
    from phasebus.initializer.engines.vllm.inside import hooks
    from phasebus.initializer.engines.vllm.inside.forkserver.begin import fork_server
    from phasebus.initializer.engines.vllm.inside.forkserver.imported import apply_changes
    from phasebus.initializer.engines.vllm.inside.processes import suppress_own_start_report
    from phasebus.initializer.engines.vllm.openai_server import OpenAIServer
    from phasebus.stack_dump import offer_stacks

    first = _first_message(connection)
    sys.path[:] = first.path
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # Ray's processes may ignore it
    # sent by the fork server when the actor has ended, which is noticed here as well; no child ignores it
    signal.signal(signal.SIGTERM, lambda *_: None)
    os.environ.update(first.environment)
    apply_changes(os.environ)
    hooks.set_serving(False)  # as in an actor: the node waits for the server itself, and its tokens are counted here
    fork_server()  # closes both sockets there: they are inheritable until now
    suppress_own_start_report()  # of this process: not of those that are forked
    for each in (connection, listener):
        if each is not None:
            each.set_inheritable(False)
    offer_stacks()
    server = None if first.serving is None else OpenAIServer(*first.serving, listener)
    # in a thread, as in an actor: uvicorn handles signals in a main thread
    engine = threading.Thread(
        target=asyncio.run, args=(serve_calls(connection, EngineHost(server)),), name="engine", daemon=True
    )
    engine.start()
    waiting = select.poll()
    waiting.register(connection, select.POLLRDHUP)
    waiting.poll()
    engine.join(_STOP_SECONDS)
    _end_children()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


async def serve_calls(connection: socket.socket, host: EngineHost) -> None:
    """Call the methods of `host` that the actor asks for; stop it once the connection has ended."""
    reader, writer = await asyncio.open_connection(sock=connection)
    running: set[asyncio.Task[None]] = set()
    while (request := await read_message(reader)) is not None:
        task = asyncio.create_task(_serve_call(writer, host, *request))
        running.add(task)
        task.add_done_callback(running.discard)
    with contextlib.suppress(Exception):
        await host.stop()


async def _serve_call(
    writer: asyncio.StreamWriter, host: EngineHost, number: int, method: str, args: tuple[Any, ...]
) -> None:
    result, error = None, None
    try:
        result = await getattr(host, method)(*args)
    except Exception as raised:  # noqa: BLE001  # its class may be vLLM's, which the actor does not import
        error = str(raised) or type(raised).__name__
    write_message(writer, (number, result, error))


def _end_children() -> None:
    """Kill what the engine has not ended itself."""
    import psutil

    from phasebus.telemetry.descendants import descendants

    for process in descendants(psutil.Process()):
        with contextlib.suppress(psutil.Error):
            process.kill()


def _first_message(connection: socket.socket) -> FirstMessage:
    (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size))
    message: FirstMessage = pickle.loads(_exactly(connection, length))  # noqa: S301  # of the actor
    return message


def _exactly(connection: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size:
        part = connection.recv(size - len(content))
        if not part:
            raise SystemExit(0)  # the actor has ended
        content += part
    return content


if __name__ == "__main__":
    main(*(socket.socket(fileno=int(each)) for each in sys.argv[1:]), *([None] if len(sys.argv) == 2 else []))
