"""A server whose every byte a test decides."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class RawServer:
    """A running server.

    Attributes:
        url: Its address.
        heads: The heads of the requests, in order.
        connections: The open connections.
        closed: Set when the server closes; behaviours that wait have to watch it.
    """

    url: str
    heads: list[str] = field(default_factory=list)
    connections: set[socket.socket] = field(default_factory=set)
    closed: threading.Event = field(default_factory=threading.Event)


Behaviour = Callable[[RawServer, socket.socket], None]
"""Answers one request, whose head is the server's last; the connection is closed if it raises OSError."""


def response(status: int = 200, body: bytes = b"", **headers: str) -> bytes:
    """Return a response; a Content-Length is added unless one is given."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    named.setdefault("Content-Length", str(len(body)))
    lines = [f"HTTP/1.1 {status} Status", *(f"{name}: {value}" for name, value in named.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def answering(*answers: bytes) -> Behaviour:
    """Return a behaviour that sends these answers one by one, and the last one for ever."""

    def behave(server: RawServer, connection: socket.socket) -> None:
        connection.sendall(answers[min(len(server.heads), len(answers)) - 1])

    return behave


def repeating(data: bytes, seconds: float, start: bytes = b"") -> Behaviour:
    """Return a behaviour that sends `start`, and then `data` again and again."""

    def behave(server: RawServer, connection: socket.socket) -> None:
        connection.sendall(start)
        while not server.closed.wait(seconds):
            connection.sendall(data)

    return behave


@contextmanager
def raw_server(behave: Behaviour) -> Iterator[RawServer]:
    """Run a server on a free port of loopback; `behave` answers each request."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        server = RawServer(f"http://127.0.0.1:{listener.getsockname()[1]}")

        def serve(connection: socket.socket) -> None:
            pending = b""
            with connection, contextlib.suppress(OSError):
                while data := connection.recv(65536):
                    pending += data
                    while b"\r\n\r\n" in pending:
                        head, _, pending = pending.partition(b"\r\n\r\n")
                        server.heads.append(head.decode("latin-1"))
                        behave(server, connection)
            server.connections.discard(connection)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    server.connections.add(connection)
                    threading.Thread(target=serve, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.closed.set()
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            for connection in tuple(server.connections):
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            thread.join()
