"""Calls from Ray's controller to the training driver, over a Unix socket.

The controller is an actor on the same node, and the socket is in a folder that only its user can read. A message is a
cloudpickle, preceded by its length as 8 bytes.
"""

from __future__ import annotations

import contextlib
import pickle
import socket
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio

from phasebus.initializer.pipeline.blocking import call_beside

T = TypeVar("T")
Handler = Callable[[str, dict[str, Any]], Awaitable[Any]]

_LENGTH_BYTES = 8
_PART = 2**16

_LONGEST_FOLDER = 60
"""Maximum length of the temporary folder's path: a Unix socket's path has at most 107 bytes (unix(7))."""


class RpcError(Exception):
    """Raised by the client when the handler raised; the message is that error, with its notes."""


class RpcConnectionError(Exception):
    """Raised by the client when no server listens: the training driver has ended, or was cancelled."""


class RpcClient:
    """The client in Ray's controller. It connects at the first call.

    Args:
        address: The path of the socket.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._socket: socket.socket | None = None

    def __reduce__(self) -> tuple[type[RpcClient], tuple[str]]:
        return RpcClient, (self._address,)  # a socket cannot be pickled

    def call(self, method: str, **arguments: Any) -> Any:
        """Call `method` in the training driver and return its result.

        Raises:
            RpcError: The handler raised.
            RpcConnectionError: The driver cannot be reached.
        """
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX)
                self._socket.connect(self._address)
            self._socket.sendall(packed((method, arguments)))
            failure, answer = pickle.loads(self._receive(int.from_bytes(self._receive(_LENGTH_BYTES))))  # noqa: S301
        except OSError as error:
            raise RpcConnectionError(f"cannot reach the training driver at {self._address}: {error}") from error
        if failure is not None:
            raise RpcError(failure)
        return answer

    def _receive(self, size: int) -> bytes:
        assert self._socket is not None  # noqa: S101  # `call` has connected it
        received = bytearray()
        while len(received) < size:
            if not (part := self._socket.recv(size - len(received))):
                raise ConnectionResetError("the driver closed the connection")
            received += part
        return bytes(received)


async def call_with_server(function: Callable[[str], T], handler: Handler) -> T:
    """Call `function` in a thread and serve `RpcClient` calls at the address it receives.

    A cancellation closes the socket, so that the client's next call raises `RpcConnectionError`; then `function` is
    awaited.

    Args:
        function: Receives the address; the server closes when it returns.
        handler: Receives the method and its arguments; the client raises its error as an `RpcError`.

    Raises:
        Exception: The error that `function` raised.
    """
    short = None if len(tempfile.gettempdir()) <= _LONGEST_FOLDER else "/tmp"  # noqa: S108  # the folder in it is readable by its owner only
    with tempfile.TemporaryDirectory(prefix="phasebus-", dir=short) as folder:
        address = str(Path(folder) / "rpc")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.setblocking(False)
            listener.bind(address)
            listener.listen()
            return await call_beside(partial(function, address), partial(_listen, listener, handler))


async def _listen(listener: socket.socket, handler: Handler) -> None:
    """Serve every connection until cancelled.

    Plain sockets: anyio's Unix streams fail when a cancellation coincides with arriving data.
    """
    async with anyio.create_task_group() as tasks:
        while True:
            await anyio.wait_readable(listener)
            client, _ = listener.accept()
            tasks.start_soon(_serve, client, handler)


async def _serve(client: socket.socket, handler: Handler) -> None:
    """Serve one connection until the client closes it."""
    with client, contextlib.suppress(ConnectionError):
        client.setblocking(False)
        while True:
            size = int.from_bytes(await _received(client, _LENGTH_BYTES))
            reply = memoryview(await _reply(await _received(client, size), handler))
            while reply:
                await anyio.wait_writable(client)
                reply = reply[client.send(reply) :]


async def _received(client: socket.socket, size: int) -> bytes:
    """Return the next `size` bytes."""
    received = bytearray()
    while len(received) < size:
        await anyio.wait_readable(client)
        if not (part := client.recv(min(size - len(received), _PART))):
            raise ConnectionResetError("the client closed the connection")
        received += part
    return bytes(received)


async def _reply(request: bytes, handler: Handler) -> bytes:
    """Return the encoded reply: the result, or the error."""
    try:
        method, arguments = pickle.loads(request)  # noqa: S301  # from the controller that this process started
        return packed((None, await handler(method, arguments)))
    except Exception as error:  # noqa: BLE001  # the client raises it
        return packed(("\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())]), None))


def packed(value: object) -> bytes:
    """Return `value` as a message: the length of its cloudpickle, and the cloudpickle."""
    from ray import cloudpickle

    data: bytes = cloudpickle.dumps(value)
    return len(data).to_bytes(_LENGTH_BYTES) + data
