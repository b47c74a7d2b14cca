"""uvicorn's server and protocol, extended: limits on connections, and a close without pauses.

This is the one file that extends uvicorn (0.22 to 0.54), which has no limit of its own on a connection without a request or
with an unread response, and which notices only every 0.1 s that it is to close.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from phasebus.telemetry.service.limits import QUEUED_CONNECTIONS, Limits

ACCEPTED_AT_ONCE: Final = 16
"""Connections that are accepted before requests are answered, so that a thousand at once do not exhaust the descriptors."""

_POLL_SECONDS = 0.005
"""Time between two checks whether all connections have closed, in seconds."""

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


class LimitedProtocol(H11Protocol):
    """One connection of the service.

    Args:
        limits: The limits of the service; the other arguments are uvicorn's.
    """

    _head_timer: asyncio.TimerHandle | None = None
    _stall_timer: asyncio.TimerHandle | None = None
    _opened = 0.0

    def __init__(self, *args: Any, limits: Limits, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limits = limits

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection."""
        super().connection_made(transport)
        self._opened = self.loop.time()
        if len(self.connections) > self._limits.connections:
            others: list[Any] = [
                each for each in self.connections if each is not self and not each.transport.is_closing()
            ]
            if len(others) >= self._limits.connections:
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

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self._limits.head_seconds, self._close_without_head)

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
