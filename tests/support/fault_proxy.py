"""A TCP proxy that breaks and stalls connections, drops their end, and changes bytes."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

Kind = Literal["none", "reset", "truncate", "stall", "flip", "status"]


@dataclass(frozen=True)
class Fault:
    """What happens to one connection.

    Attributes:
        kind: ``reset`` and ``truncate`` end it, one by RST and one in order; ``stall`` sends nothing more; ``flip`` changes
            one byte; ``status`` answers every request with `status`, without asking the server.
        after: The number of bytes sent to the client before it happens.
        status: The status line's number.
        headers: Further header lines of such an answer.
    """

    kind: Kind = "none"
    after: int = 0
    status: int = 503
    headers: str = ""


class FaultProxy:
    """A running proxy.

    Attributes:
        port: Where it listens, on loopback.
        connections: The number of connections accepted.
        passed: The number of bytes sent to clients.
        gate: While cleared, nothing more is sent to clients.
        limit: The number of bytes after which the gate is cleared; None for never.
    """

    def __init__(self, upstream: int, plan: Callable[[int], Fault]) -> None:
        self._upstream = upstream
        self._plan = plan
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self.port = self._listener.getsockname()[1]
        self.connections = 0
        self.passed = 0
        self.gate = threading.Event()
        self.gate.set()
        self.halted = threading.Event()
        self.limit: int | None = None
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        """The address clients use, as another host than the server's."""
        return f"http://localhost:{self.port}"

    def close(self) -> None:
        """End everything."""
        self._closed.set()
        self.gate.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            fault = self._plan(self.connections)
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(client, fault))
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket, fault: Fault) -> None:
        with self._kept(client), contextlib.suppress(OSError):
            if fault.kind == "status":
                self._refuse(client, fault)
                return
            server = socket.create_connection(("127.0.0.1", self._upstream))
            with self._kept(server):
                forward = threading.Thread(target=self._forward, args=(client, server))
                forward.start()
                try:
                    self._backward(server, client, fault)
                finally:
                    with contextlib.suppress(OSError):
                        server.shutdown(socket.SHUT_RDWR)
                    if fault.kind != "reset":
                        with contextlib.suppress(OSError):
                            client.shutdown(socket.SHUT_RDWR)
                    else:
                        # the other thread reads from the client: it has to leave before a close can send RST
                        with contextlib.suppress(OSError):
                            client.shutdown(socket.SHUT_RD)
                    forward.join()

    @contextmanager
    def _kept(self, connection: socket.socket) -> Iterator[None]:
        with self._lock:
            self._open.add(connection)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    @staticmethod
    def _forward(client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)

    def _backward(self, server: socket.socket, client: socket.socket, fault: Fault) -> None:
        sent = 0
        while data := server.recv(65536):
            ending = fault.kind in {"reset", "truncate", "stall"} and sent + len(data) > fault.after
            if ending:
                data = data[: fault.after - sent]
            elif fault.kind == "flip" and sent <= fault.after < sent + len(data):
                changed = bytearray(data)
                changed[fault.after - sent] ^= 0x01
                data = bytes(changed)
            client.sendall(data)
            sent += len(data)
            with self._lock:
                self.passed += len(data)
                if self.limit is not None and self.passed >= self.limit:
                    self.limit = None
                    self.gate.clear()
                    self.halted.set()
            self.gate.wait()
            if ending:
                if fault.kind == "reset":
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                elif fault.kind == "stall":
                    while not self._closed.is_set() and self._waits(client):
                        pass
                return

    @staticmethod
    def _waits(client: socket.socket) -> bool:
        """Wait a little; return whether the client is still there."""
        client.settimeout(0.05)
        try:
            return bool(client.recv(1, socket.MSG_PEEK))
        except TimeoutError:
            return True
        except OSError:
            return False

    @staticmethod
    def _refuse(client: socket.socket, fault: Fault) -> None:
        answer = f"HTTP/1.1 {fault.status} Nope\r\n{fault.headers}Content-Length: 0\r\n\r\n".encode()
        pending = b""
        while data := client.recv(65536):
            pending += data
            while b"\r\n\r\n" in pending:
                pending = pending.partition(b"\r\n\r\n")[2]
                client.sendall(answer)


@contextmanager
def fault_proxy(upstream: int, plan: Callable[[int], Fault] = lambda _: Fault()) -> Iterator[FaultProxy]:
    """Run a proxy in front of the server at port `upstream`; `plan` returns the fault of each connection by its number."""
    proxy = FaultProxy(upstream, plan)
    try:
        yield proxy
    finally:
        proxy.close()
