"""The line between Ray's controller, which asks, and the process that trains, which answers.

The controller is an actor on the node of the process that trains, so this is a Unix socket in a folder of the user's own.
What goes over it is pickled as Ray pickles, behind its length in 8 bytes.
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
Answer = Callable[[str, dict[str, Any]], Awaitable[Any]]

_LENGTH_BYTES = 8
_PART = 2**16

_LONGEST_FOLDER = 60
"""How long the path of the folder for temporary files may be: that of a Unix socket may have 107 bytes (unix(7))."""


class AnswerError(Exception):
    """Raised at the asking end when the other could not answer; the message is the error there, and its notes."""


class LineLostError(Exception):
    """Raised at the asking end when nobody is at the other: the process that trains has ended, or was cancelled."""


class Line:
    """The asking end; it connects when it first asks.

    Args:
        address: The path of the socket.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._socket: socket.socket | None = None

    def __reduce__(self) -> tuple[type[Line], tuple[str]]:
        return Line, (self._address,)  # a connection does not travel

    def ask(self, moment: str, **told: Any) -> Any:
        """Tell of `moment`, and return the answer.

        Raises:
            AnswerError: The other end raised.
            LineLostError: There is no other end.
        """
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX)
                self._socket.connect(self._address)
            self._socket.sendall(packed((moment, told)))
            failure, answer = pickle.loads(self._receive(int.from_bytes(self._receive(_LENGTH_BYTES))))  # noqa: S301
        except OSError as error:
            raise LineLostError(f"the process that trains does not answer at {self._address}: {error}") from error
        if failure is not None:
            raise AnswerError(failure)
        return answer

    def _receive(self, size: int) -> bytes:
        assert self._socket is not None  # noqa: S101  # it has been connected
        received = bytearray()
        while len(received) < size:
            if not (part := self._socket.recv(size - len(received))):
                raise ConnectionResetError("the line is closed")
            received += part
        return bytes(received)


async def call_answering(function: Callable[[str], T], answer: Answer) -> T:
    """Call `function` in a thread, and answer meanwhile whoever asks at the address it is given.

    When this is cancelled the line is cut, so that whoever asks next is told, and `function` is waited for.

    Args:
        function: Is given the address, and returns when nobody will ask any more.
        answer: Is given what was asked; what it raises is told to the asker.

    Raises:
        Exception: What `function` raised.
    """
    short = None if len(tempfile.gettempdir()) <= _LONGEST_FOLDER else "/tmp"  # noqa: S108  # the folder in it is ours alone
    with tempfile.TemporaryDirectory(prefix="phasebus-", dir=short) as folder:
        address = str(Path(folder) / "line")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.setblocking(False)
            listener.bind(address)
            listener.listen()
            return await call_beside(partial(function, address), partial(_listen, listener, answer))


async def _listen(listener: socket.socket, answer: Answer) -> None:
    """Answer whoever connects, until cancelled.

    With sockets, as anyio's own Unix streams fail if they are cancelled in the moment in which something arrives.
    """
    async with anyio.create_task_group() as tasks:
        while True:
            await anyio.wait_readable(listener)
            asker, _ = listener.accept()
            tasks.start_soon(_converse, asker, answer)


async def _converse(asker: socket.socket, answer: Answer) -> None:
    """Answer one asker until it goes."""
    with asker, contextlib.suppress(ConnectionError):
        asker.setblocking(False)
        while True:
            size = int.from_bytes(await _received(asker, _LENGTH_BYTES))
            reply = memoryview(await _reply(await _received(asker, size), answer))
            while reply:
                await anyio.wait_writable(asker)
                reply = reply[asker.send(reply) :]


async def _received(asker: socket.socket, size: int) -> bytes:
    """Return the next `size` bytes."""
    received = bytearray()
    while len(received) < size:
        await anyio.wait_readable(asker)
        if not (part := asker.recv(min(size - len(received), _PART))):
            raise ConnectionResetError("the asker has gone")
        received += part
    return bytes(received)


async def _reply(question: bytes, answer: Answer) -> bytes:
    """Return what is sent back: the answer, or why there is none."""
    try:
        moment, told = pickle.loads(question)  # noqa: S301  # from a process of ours
        return packed((None, await answer(moment, told)))
    except Exception as error:  # noqa: BLE001  # it is the asker's to raise
        return packed(("\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())]), None))


def packed(value: object) -> bytes:
    """Return `value` as it is sent."""
    from ray import cloudpickle

    data: bytes = cloudpickle.dumps(value)
    return len(data).to_bytes(_LENGTH_BYTES) + data
