"""uvicorn's server and protocol, extended: limits on connections, and a close without pauses.

This is the one file that extends uvicorn (0.22 to 0.54), which has no limit of its own on a connection without a request or
with an unread response, and which notices only every 0.1 s that it is to close.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Any, Final, cast

import anyio.lowlevel
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from phasebus.telemetry.service.limits import QUEUED_CONNECTIONS, Limits

ACCEPTED_AT_ONCE: Final = 16
"""Connections that are accepted before requests are answered, so that a thousand at once do not exhaust the descriptors."""

_POLL_SECONDS = 0.005
"""Time between two checks whether all connections have closed, in seconds."""

_LAST_RESPONSE_SECONDS = 2.0
"""Maximum duration of the response to a client that sends no more, in seconds."""

_LAST_ROUNDS = 6
"""Rounds of the event loop before the server closes, so that open connections are accepted, registered and read."""


class LimitedServer(uvicorn.Server):
    """A server that begins to close when `stop` is called, and ends when its last response is sent.

    Its queue of connections is longer than the number that it accepts at once; asyncio has one number for both.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._stopping = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def stop(self) -> None:
        """Begin to close; called from any thread."""
        self.should_exit = True
        if self._loop is not None:
            with suppress(RuntimeError):  # its loop is closed: it has ended
                self._loop.call_soon_threadsafe(self._stopping.set)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept connections."""
        await anyio.lowlevel.checkpoint()  # imports the rest of anyio, which would delay the first probes
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(QUEUED_CONNECTIONS)

    async def main_loop(self) -> None:
        """Update the Date header every second, until `stop` is called."""
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more connections, and wait for the running responses, then cancel them."""
        for _ in range(_LAST_ROUNDS):  # accept and read what arrived before
            await asyncio.sleep(0)
        for server in self.servers:
            server.close()
        for listener in sockets or ():
            listener.close()
        for connection in tuple(self.server_state.connections):
            connection.shutdown()
        with suppress(TimeoutError):
            async with asyncio.timeout(self.config.timeout_graceful_shutdown):
                while (self.server_state.connections or self.server_state.tasks) and not self.force_exit:  # noqa: ASYNC110  # uvicorn's sets
                    await asyncio.sleep(_POLL_SECONDS)
        for task in tuple(self.server_state.tasks):
            task.cancel()


class UnreadConnection(asyncio.Protocol):
    """A connection of the service that has sent nothing. Its first bytes create the `LimitedProtocol` that continues it.

    Without a parser it costs a third, so that a probe behind a thousand idle connections is soon accepted.

    Args:
        limits: The limits of the service.
        unread: The connections that have sent nothing, the oldest first; shared by those of a server.
        server_state: uvicorn's state of the server.
        others: uvicorn's other arguments.
    """

    has_request = False

    def __init__(
        self, *, limits: Limits, unread: dict[UnreadConnection, None], server_state: ServerState, **others: Any
    ) -> None:
        self._limits = limits
        self._unread = unread
        self._state = server_state
        self._others = others
        self._loop = asyncio.get_running_loop()
        self.opened = self._loop.time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accept a connection; close another one if there are too many."""
        self.transport = cast(asyncio.Transport, transport)
        connections: set[Any] = self._state.connections
        if len(connections) >= self._limits.connections:
            self._close_one_of(connections)
        connections.add(self)
        self._unread[self] = None
        self._timer = self._loop.call_later(self._limits.head_seconds, self.transport.abort)

    def data_received(self, data: bytes) -> None:
        """Continue the connection with a protocol that parses requests."""
        self._forget()
        protocol = LimitedProtocol(limits=self._limits, opened=self.opened, server_state=self._state, **self._others)
        protocol.connection_made(self.transport)
        self.transport.set_protocol(protocol)
        protocol.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._forget()

    def shutdown(self) -> None:
        """Close the connection, because the server closes."""
        self.transport.close()

    def _forget(self) -> None:
        self._timer.cancel()
        self._unread.pop(self, None)
        self._state.connections.discard(self)

    def _close_one_of(self, connections: set[Any]) -> None:
        """Close the oldest connection that has sent nothing; one without a request, or else any, if those are few.

        The last ones that were accepted are not closed before they have been read.
        """
        if len(self._unread) > ACCEPTED_AT_ONCE:
            oldest: Any = next(iter(self._unread))
        else:
            oldest = min(connections, key=lambda each: (each.has_request, each.opened))
        connections.discard(oldest)
        self._unread.pop(oldest, None)
        oldest.transport.abort()


class LimitedProtocol(H11Protocol):
    """A connection of the service that has sent something.

    Args:
        limits: The limits of the service.
        opened: When it was opened, by the clock of the event loop, in seconds.
        others: uvicorn's arguments.
    """

    _is_last = False
    _head_timer: asyncio.TimerHandle | None = None
    _stall_timer: asyncio.TimerHandle | None = None

    def __init__(self, *, limits: Limits, opened: float, **others: Any) -> None:
        super().__init__(**others)
        self._limits = limits
        self.opened = opened

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Continue a connection."""
        super().connection_made(transport)
        self._await_head(self.opened)

    def data_received(self, data: bytes) -> None:
        """Receive a part of a request."""
        super().data_received(data)
        if self.has_request or self.timeout_keep_alive_task is not None:
            self._cancel_head_timer()
        elif self._head_timer is None:
            self._await_head(self.loop.time())

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep the connection open for the response to a client that sends no more, but not for a stream.

        A client that is gone ends what it sends, too.
        """
        self._is_last = self.has_request
        if self._is_last:
            self.loop.call_later(_LAST_RESPONSE_SECONDS, self.transport.abort)
        return self._is_last

    def on_response_complete(self) -> None:
        """Close the connection of a client that sends no more."""
        super().on_response_complete()
        if self._is_last and not self.has_request:
            self.transport.close()

    def pause_writing(self) -> None:
        """Stop writing: the client does not read."""
        super().pause_writing()
        self._stall_timer = self._stall_timer or self.loop.call_later(self._limits.stall_seconds, self.transport.abort)

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

    def _await_head(self, since: float) -> None:
        self._head_timer = self.loop.call_at(since + self._limits.head_seconds, self._close_without_head)

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
