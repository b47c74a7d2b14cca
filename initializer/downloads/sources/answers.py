"""The answer of a web server, read into memory of ours as it comes.

Clients that make new bytes for each read cost as much again as everything else does for a large file, and their layers as
much for a small one; so it is http.client's, which does not have to.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException

_DRAINED = 64 * 2**10
"""How many bytes of an answer nobody wants are read, so that its connection can be used again."""

_PIECE = 128 * 2**10
"""How many bytes are waited for at once: as many are lost where a connection breaks."""


class Answer:
    """What a server answers to a request. `stop` may be called from any thread.

    Args:
        connection: Where it was asked; it belongs to the answer from now on.
        keep: Takes the connection when it can be used again.

    Attributes:
        status: The HTTP status.
        headers: The headers.
    """

    def __init__(self, connection: HTTPConnection, keep: Callable[[HTTPConnection], None]) -> None:
        self._keep = keep
        self._connection: HTTPConnection | None = connection
        self._socket: socket.socket = connection.sock
        self._asked_for = False
        self._response = connection.getresponse()
        self.status = self._response.status
        self.headers = self._response.headers

    def receive(self, room: memoryview) -> int:
        """Put the next bytes into `room`; return how many, 0 at the end.

        Raises:
            TimeoutError: None came for too long.
            OSError, HTTPException: The connection broke.
        """
        self._asked_for = True
        return self._response.readinto(room[:_PIECE])

    def stop(self) -> None:
        """End the reading."""
        with contextlib.suppress(OSError):
            # not the method of an SSL socket, which takes the TLS state from under whoever reads
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Keep the connection if all was read, or if it is little and nobody wanted it; else close it. May be called twice.

        After a refusal it is closed: another one may lead to a server that is less busy.
        """
        connection, self._connection = self._connection, None
        if connection is None:
            return
        response, useful = self._response, self.status < 400
        if useful and not self._asked_for and response.length is not None and response.length <= _DRAINED:
            with contextlib.suppress(OSError, HTTPException):
                response.read()
        # one that ended too early is closed as well, and some length is left
        useful = useful and response.isclosed() and not response.length and connection.sock is not None
        response.close()
        if useful:
            self._keep(connection)
        else:
            connection.close()
