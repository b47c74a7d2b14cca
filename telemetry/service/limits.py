"""The limits of the HTTP service on connections, on the time of a request's head, and on readers that do not read.

They keep file descriptors and memory for the start-up, and the probes quick. This is the one file that extends uvicorn's
protocol and server (0.22 to 0.54), which have no limit of their own on a connection without a request or with an unread
response.
"""

from __future__ import annotations

import asyncio
import resource
import socket
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS: Final = 256
"""Open connections; one more closes the oldest one that has no request, or else the oldest."""

DESCRIPTORS_SHARE: Final = 8
"""At most one file descriptor in this number is a connection: of the 1,024 of most systems, 128."""

HEAD_SECONDS: Final = 10.0
"""Seconds that a client has for the head of a request."""

STALL_SECONDS: Final = 10.0
"""Seconds after which a client that reads nothing of its response is disconnected."""

ACCEPTED_AT_ONCE: Final = 16
"""Connections that are accepted before requests are answered, so that a thousand at once do not exhaust the descriptors."""

_QUEUED: Final = 1024
"""Connections that wait in the system. It would answer more only when they try again, after a second."""


def connection_limit() -> int:
    """Return how many connections a service of this process may have."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(8, min(MAX_CONNECTIONS, descriptors // DESCRIPTORS_SHARE))


class LimitedServer(uvicorn.Server):
    """A server whose queue of connections is longer than what it accepts at once; asyncio has one number for both."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept connections."""
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(_QUEUED)


class LimitedProtocol(H11Protocol):
    """One connection of the service."""

    _head_timer: asyncio.TimerHandle | None = None
    _stall_timer: asyncio.TimerHandle | None = None
    _opened = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection."""
        super().connection_made(transport)
        self._opened = self.loop.time()
        limit = connection_limit()
        if len(self.connections) > limit:
            others: list[Any] = [
                each for each in self.connections if each is not self and not each.transport.is_closing()
            ]
            if len(others) >= limit:
                min(others, key=lambda each: (each.has_request, each._opened)).transport.abort()  # noqa: SLF001
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Receive a part of a request."""
        super().data_received(data)
        if self.has_request or self.timeout_keep_alive_task is not None:
            self._cancel_head_timer()
        elif self._head_timer is None:
            self._await_head()

    def pause_writing(self) -> None:
        """Stop writing: the client does not read."""
        super().pause_writing()
        self._stall_timer = self._stall_timer or self.loop.call_later(STALL_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Write on."""
        super().resume_writing()
        self._cancel_stall_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._cancel_head_timer()
        self._cancel_stall_timer()
        super().connection_lost(exc)

    @property
    def has_request(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._close_without_head)

    def _close_without_head(self) -> None:
        self._head_timer = None
        if not self.has_request:
            self.transport.abort()

    def _cancel_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _cancel_stall_timer(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None
