"""The response of a web server, read into the caller's memory as it arrives.

A client that allocates new bytes for each read costs as much again as all other work on a large file, and its layers as
much on a small one. ``http.client`` reads into a given buffer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException

from phasebus.initializer.downloads.sources.wire import Wire

_DRAINED = 64 * 2**10
"""The largest unread rest of a response, in bytes, that is read so that its connection can be used again."""

_PIECE = 128 * 2**10
"""The number of bytes requested from the socket at once: at most this many are lost when a connection breaks."""


class Response:
    """The response to a request. `stop` is called from any thread.

    Args:
        connection: The connection on which the request was sent; owned by the response from now on.
        wire: The connection's socket.
        keep: Accepts the connection when it can be used again.

    Attributes:
        status: The HTTP status.
        headers: The headers.
    """

    def __init__(self, connection: HTTPConnection, wire: Wire, keep: Callable[[HTTPConnection], None]) -> None:
        self._keep = keep
        self._connection: HTTPConnection | None = connection
        self._wire = wire
        self._started = False
        wire.expect_head()
        self._response = connection.getresponse()
        wire.expect_body()
        self.status = self._response.status
        self.headers = self._response.headers

    def receive(self, room: memoryview) -> int:
        """Put the next bytes into `room`; return how many, 0 at the end.

        Raises:
            TimeoutError: Too few arrived in time.
            OSError, HTTPException: The connection broke.
        """
        self._started = True
        return self._response.readinto(room[:_PIECE])

    def stop(self) -> None:
        """End the transfer."""
        self._wire.abort()

    def close(self) -> None:
        """Keep the connection if the body is read or its rest is small; else close it. Possibly called twice.

        After an error status it is closed: another connection may reach a server that is less busy.
        """
        connection, self._connection = self._connection, None
        if connection is None:
            return
        response, reusable = self._response, self.status < 400
        if reusable and not self._started and response.length is not None and response.length <= _DRAINED:
            with contextlib.suppress(OSError, HTTPException):
                response.read()
        # a response that ended too early is closed as well, with some length left
        reusable = reusable and response.isclosed() and not response.length and connection.sock is not None
        response.close()
        if reusable:
            self._keep(connection)
        else:
            connection.close()
