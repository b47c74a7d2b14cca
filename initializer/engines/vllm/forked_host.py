"""An engine in a fork of a fork server that stays, as the actor that starts it sees it."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Mapping
from typing import Any, Final

from phasebus.initializer.engines.optional import ForkedCommand
from phasebus.initializer.engines.protocol import EngineError, ForkServerUse, describe_exit
from phasebus.initializer.engines.vllm import host_process
from phasebus.initializer.engines.vllm.forking import NO_SERVER, applied_later, fork_program, use_in_ray
from phasebus.initializer.engines.vllm.host_process import FirstMessage, read_message, send_first, write_message
from phasebus.initializer.engines.vllm.inside.forkserver.kept.address import AddressError
from phasebus.initializer.engines.vllm.inside.forkserver.kept.client import NotForkedError
from phasebus.initializer.engines.vllm.inside.forkserver.kept.commands import PythonCommand
from phasebus.initializer.engines.vllm.openai_server import OpenAIServer

logger = logging.getLogger("phasebus.engine")

_CONNECTION, _LISTENER = 200, 201
"""The numbers of the fork's descriptors; the server has none so high."""

_EXIT_SECONDS: Final = 5.0
_TITLE: Final = "phasebus engine"


def fork_host(server: OpenAIServer | None, use: ForkServerUse) -> ForkedHost | None:
    """Return an engine's process as a fork of a server that stays; None if it cannot be forked, and one line says why.

    Args:
        server: The engine's server, whose port is bound; the fork has its socket from then on.
        use: "existing": without a server, no line is written.
    """
    ours, theirs = socket.socketpair()
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    descriptors = {0: nothing, 1: 1, 2: 2, _CONNECTION: theirs.fileno()}
    if server is not None:
        descriptors[_LISTENER] = server.listener.fileno()
    arguments = ["-m", str(_CONNECTION), *([] if server is None else [str(_LISTENER)])]
    program = PythonCommand(arguments=arguments, script=None, module=host_process.__name__, name="python")
    environment, later = applied_later(os.environ)
    try:
        wanted = use_in_ray(os.environ) if use == "keep" else use
        forked = fork_program(program, environment, wanted, title=_TITLE, descriptors=descriptors)
        if forked is None and use == "keep":
            raise NotForkedError(NO_SERVER)
    except (NotForkedError, AddressError, OSError) as error:
        logger.warning("phasebus: the engine runs in its actor, not in a fork of a fork server: %s", error)
        forked = None
    finally:
        os.close(nothing)
        theirs.close()
    if forked is None:
        ours.close()
        return None
    serving = None if server is None else (server.serving, server.own_address)
    send_first(ours, FirstMessage(serving=serving, environment=later, path=sys.path))
    if server is not None:
        server.listener.close()
    return ForkedHost(forked, ours)


class ForkedHost:
    """Calls the methods of an `EngineHost` in another process.

    Args:
        command: That process; it ends when this one does.
        connection: The connection to it.
    """

    def __init__(self, command: ForkedCommand, connection: socket.socket) -> None:
        self._command = command
        self._connection = connection
        self._writer: asyncio.StreamWriter | None = None
        self._receiver: asyncio.Task[None] | None = None
        self._results: dict[int, asyncio.Future[Any]] = {}
        self._calls = 0
        self._ended: str | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._command.pid

    async def load_server(self) -> Mapping[str, float]:
        """Import the server and check its arguments; see `EngineHost`."""
        return dict(await self._call("load_server"))

    async def start(self, args: Mapping[str, Any], env: Mapping[str, str]) -> None:
        """Start the engine."""
        await self._call("start", dict(args), dict(env))

    async def serve(self) -> str | None:
        """Serve the engine; return the URL once the server answers, or None if it has no server."""
        url = await self._call("serve")
        return None if url is None else str(url)

    async def generate(self, prompt: str, sampling: Mapping[str, Any]) -> str:
        """Return the model's continuation of `prompt`."""
        return str(await self._call("generate", prompt, dict(sampling)))

    async def probe(self) -> None:
        """Raise the cause if the engine is dead."""
        await self._call("probe")

    async def stop(self) -> None:
        """Shut the engine down, after the requests that run."""
        await self._call("stop")

    async def _call(self, method: str, *args: Any) -> Any:
        """Return the result of a method there.

        Raises:
            EngineError: It has failed there, or the process has ended.
        """
        if self._receiver is None:
            reader, self._writer = await asyncio.open_connection(sock=self._connection)
            self._receiver = asyncio.create_task(self._receive(reader))
        if self._ended is not None:
            raise EngineError(self._ended)
        assert self._writer is not None  # noqa: S101  # made above
        self._calls += 1
        number = self._calls
        result = self._results[number] = asyncio.get_running_loop().create_future()
        write_message(self._writer, (number, method, args))
        try:
            return await result
        finally:
            self._results.pop(number, None)

    async def _receive(self, reader: asyncio.StreamReader) -> None:
        while (message := await read_message(reader)) is not None:
            number, result, error = message
            waiting = self._results.get(number)
            if waiting is None or waiting.done():  # its caller was cancelled
                continue
            if error is None:
                waiting.set_result(result)
            else:
                waiting.set_exception(EngineError(error))
        try:
            code = await asyncio.wait_for(asyncio.to_thread(self._command.wait), _EXIT_SECONDS)
            self._ended = f"the engine's process {describe_exit(code)}"
        except TimeoutError:
            self._ended = "the engine's process does not answer"
        for waiting in self._results.values():
            if not waiting.done():
                waiting.set_exception(EngineError(self._ended))
