"""The response of a web server, received into the caller's memory.

``http.client`` receives into a given buffer. A client that allocates memory for each read doubles the cost of a large file;
the layers of such a client double the cost of a small one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException, HTTPResponse, parse_headers

from phasebus.initializer.downloads.sources.wire import Wire

_DRAINED = 64 * 2**10
"""Maximum number of unread bytes of a response that are read to reuse its connection."""

_PIECE = 128 * 2**10
"""Number of bytes requested from the socket at once. At most this many are lost when a connection breaks."""


class _FinalResponse(HTTPResponse):
    """Skips all interim responses, such as 103 Early Hints (RFC 9110, 15.2); ``http.client`` skips 100 only."""

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]  # not in the stubs
            if not 100 <= status < 200:
                return version, status, reason
            parse_headers(self.fp)


class Response:
    """The response to a request. Any thread may call `stop`.

    Args:
        connection: The connection on which the request was sent. The response takes ownership of it.
        wire: The connection's socket.
        keep: Called with the connection when it can be reused.

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
        connection.response_class = _FinalResponse
        self._response = connection.getresponse()
        wire.expect_body()
        self.status = self._response.status
        self.headers = self._response.headers

    def receive(self, room: memoryview) -> int:
        """Receive the next bytes into `room`; return their number, 0 at the end.

        Raises:
            TimeoutError: Too few bytes arrived in time.
            OSError, HTTPException: The connection broke.
        """
        self._started = True
        return self._response.readinto(room[:_PIECE])

    def stop(self) -> None:
        """End the transfer."""
        self._wire.abort()

    def close(self) -> None:
        """Keep the connection if the body was read or few bytes are left; else close it. Possibly called twice.

        It is closed after an error status, because a new connection may reach a less busy server.
        """
        connection, self._connection = self._connection, None
        if connection is None:
            return
        response, reusable = self._response, self.status < 400
        if reusable and not self._started and response.length is not None and response.length <= _DRAINED:
            with contextlib.suppress(OSError, HTTPException):
                response.read()
        # a response that ended too early is closed too, but has some length left
        reusable = reusable and response.isclosed() and not response.length and connection.sock is not None
        response.close()
        if reusable:
            self._keep(connection)
        else:
            connection.close()
