"""A socket with a time limit for reads from a stalled server, which another thread can abort.

``http.client`` limits the pause between two bytes only. A server that sends occasional header lines, endless interim
responses, or a byte per minute would block a thread for hours.
"""

from __future__ import annotations

import contextlib
import io
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

_LEAST = 4096
"""Minimum number of bytes that must arrive in `stall_seconds` of waiting; otherwise the transfer counts as stalled."""


class Wire:
    """A connection to a server, with the methods of a socket that ``http.client`` uses.

    Args:
        family: The address family.
        stall_seconds: Maximum time for the head of a response, and for each 4 KiB of its body, in seconds.
        on_close: Called once, when the connection has been closed.
    """

    def __init__(self, family: int, stall_seconds: float, on_close: Callable[[Wire], None]) -> None:
        self._socket: socket.socket = socket.socket(family, socket.SOCK_STREAM)
        # TLS takes over the socket's descriptor; with a duplicate, `abort` works in every state
        self._handle = self._socket.dup()
        self._stall = stall_seconds
        self._on_close = on_close
        self._guard = threading.Lock()
        self._users = 1
        self._closing = False
        self._head_until: float | None = None
        self._patience = stall_seconds
        self._received = 0

    def connect(self, address: tuple[Any, ...], seconds: float) -> None:
        """Connect to `address` within `seconds`."""
        self._socket.settimeout(seconds)
        self._socket.connect(address)
        self._socket.settimeout(self._stall)

    def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """Encrypt the connection; the handshake must end within the stall time."""
        self._socket = context.wrap_socket(self._socket, server_hostname=host)

    def expect_head(self) -> None:
        """Start the time limit of a response's head."""
        self._head_until = time.monotonic() + self._stall

    def expect_body(self) -> None:
        """Start the time limit of a response's body."""
        self._head_until = None
        self._patience, self._received = self._stall, 0

    def abort(self) -> None:
        """Make every running call of another thread on the connection end. Called from any thread, possibly twice."""
        with contextlib.suppress(OSError):
            self._handle.shutdown(socket.SHUT_RDWR)

    def sendall(self, data: Any) -> None:
        """Send all of `data`."""
        self._socket.settimeout(self._stall)
        self._socket.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        """Return a reader of the received bytes; the connection stays open until the reader is closed too."""
        with self._guard:
            self._users += 1
        return io.BufferedReader(_Reader(self))

    def receive_into(self, buffer: Any) -> int:
        """Receive some bytes; 0 at the end.

        Raises:
            TimeoutError: Too few bytes arrived in time.
        """
        began = time.monotonic()
        seconds = self._patience if self._head_until is None else self._head_until - began
        if seconds <= 0:
            raise TimeoutError
        self._socket.settimeout(seconds)
        count = self._socket.recv_into(buffer)
        # only the time spent waiting counts, not the time that the caller needs between two reads
        self._patience -= time.monotonic() - began
        self._received += count
        if self._received >= _LEAST:
            self._patience, self._received = self._stall, 0
        return count

    def close(self) -> None:
        """Close the connection as soon as its readers are closed. Possibly called twice."""
        with self._guard:
            closing, self._closing = self._closing, True
        if not closing:
            self.release()

    def release(self) -> None:
        """Remove one user; without users left, close the connection."""
        with self._guard:
            self._users -= 1
            last = self._users == 0
        if last:
            self._socket.close()
            self._handle.close()
            self._on_close(self)


class _Reader(io.RawIOBase):
    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._wire.receive_into(buffer)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._wire.release()
