"""The connection on which nodes send their journals. It costs the hub a seventh of the time of a call through Ray.

A node first sends the hub's secret and a newline, then parcels. A parcel is a line of JSON, with the fields of `Parcel` and
a number of bytes, followed by that many bytes of the journal. The hub answers each parcel with a line of JSON: the offset
up to which it has the journal, or a string with the reason for a rejection.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
import socket
import threading
from collections.abc import Callable
from typing import Any, Final, NamedTuple, cast

from phasebus.bus import PhasebusError

MAX_PARCEL_BYTES: Final = 128 * 1024
"""Maximum number of journal bytes in a parcel."""

_MAX_LINE_BYTES: Final = 16 * 1024
_MAX_NAME_CHARACTERS: Final = 256
_MAX_COUNT: Final = 2**63 - 1
_CONNECT_SECONDS: Final = 3.0
_ANSWER_SECONDS: Final = 5.0
"""Less than the time without messages after which the hub marks a node as lost."""

_AUTHENTICATION_SECONDS: Final = 10.0
"""Maximum time for a peer to send the secret, in seconds."""

MAX_UNAUTHENTICATED: Final = 256
"""Connections that have not sent the secret; one more closes the oldest. They leave file descriptors for the nodes."""


class Parcel(NamedTuple):
    """A message of a node, without the lines of its journal.

    Attributes:
        node: The name of the node.
        offset: The offset of the lines in its journal, in bytes.
        dropped: Total number of events that the buffer of its journal has dropped.
        target: The address of the node's own /metrics, ``host:port``.
    """

    node: str
    offset: int
    dropped: int = 0
    target: str | None = None


class Address(NamedTuple):
    """The address of a receiver, and the secret that it expects."""

    host: str
    port: int
    secret: str


Receive = Callable[[Parcel, bytes], int]
"""Receives lines of a journal; returns the offset up to which the journal has been received."""


class RefusedError(PhasebusError):
    """Raised when the hub rejected a parcel."""


class Receiver:
    """Receives parcels, in a thread of its own.

    Args:
        receive: Called in that thread with each parcel, one at a time.
        host: The address to listen on, at a free port.
        authentication_seconds: Maximum time for a peer to send the secret, in seconds.
    """

    def __init__(self, receive: Receive, host: str, *, authentication_seconds: float = _AUTHENTICATION_SECONDS) -> None:
        self._receive = receive
        self._authentication_seconds = authentication_seconds
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, 0), family=family, backlog=1024)
        self.address = Address(host, self._socket.getsockname()[1], secrets.token_hex(16))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="phasebus hub receiver", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Close every connection and end the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        connections: set[asyncio.Transport] = set()
        unauthenticated: dict[asyncio.Transport, None] = {}

        def connection() -> _Connection:
            secret = self.address.secret.encode()
            return _Connection(self._receive, secret, self._authentication_seconds, connections, unauthenticated)

        server = self._loop.run_until_complete(self._loop.create_server(connection, sock=self._socket))
        self._loop.run_forever()
        server.close()
        for transport in connections:
            transport.abort()
        self._loop.run_until_complete(server.wait_closed())
        self._loop.close()


class _Connection(asyncio.Protocol):
    """The hub's end of a connection.

    Args:
        receive: Called with each parcel.
        secret: What a peer sends first.
        authentication_seconds: Maximum time for that, in seconds.
        connections: All connections.
        unauthenticated: Those without the secret, the oldest first.
    """

    _transport: asyncio.Transport

    def __init__(
        self,
        receive: Receive,
        secret: bytes,
        authentication_seconds: float,
        connections: set[asyncio.Transport],
        unauthenticated: dict[asyncio.Transport, None],
    ) -> None:
        self._receive = receive
        self._secret = secret
        self._authentication_seconds = authentication_seconds
        self._connections = connections
        self._unauthenticated = unauthenticated
        self._authenticated = False
        self._unread = bytearray()
        self._parcel: Parcel | None = None
        self._size = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        end: socket.socket = transport.get_extra_info("socket")
        end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a lost host never closes the connection
        asyncio.get_running_loop().call_later(self._authentication_seconds, self._abort_unauthenticated)
        self._connections.add(self._transport)
        if len(self._unauthenticated) >= MAX_UNAUTHENTICATED:
            oldest = next(iter(self._unauthenticated))
            del self._unauthenticated[oldest]
            oldest.abort()
        self._unauthenticated[self._transport] = None

    def connection_lost(self, _: Exception | None) -> None:
        self._connections.discard(self._transport)
        self._unauthenticated.pop(self._transport, None)

    def _abort_unauthenticated(self) -> None:
        if not self._authenticated:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._unread += data
        try:
            while self._advance():
                pass
        except (ValueError, TypeError, RecursionError):  # the peer is not a node
            self._transport.abort()

    def _advance(self) -> bool:
        """Handle the next complete part of the received bytes; return whether there was one."""
        if self._parcel is not None:
            if len(self._unread) < self._size:
                return False
            self._answer(self._parcel, bytes(self._cut(self._size)))
            self._parcel = None
            return True
        end = self._unread.find(b"\n", 0, _MAX_LINE_BYTES)
        if end < 0:
            if len(self._unread) > _MAX_LINE_BYTES:
                raise ValueError("a line is too long")
            return False
        line = self._cut(end + 1)
        if not self._authenticated:
            if not hmac.compare_digest(line[:-1], self._secret):
                raise ValueError("the peer is not authenticated")
            self._authenticated = True
            self._unauthenticated.pop(self._transport, None)
            return True
        self._parcel, self._size = _parse_parcel(line)
        return True

    def _cut(self, size: int) -> bytearray:
        cut = self._unread[:size]
        del self._unread[:size]
        return cut

    def _answer(self, parcel: Parcel, lines: bytes) -> None:
        try:
            answer: int | str = self._receive(parcel, lines)
        except Exception as error:  # noqa: BLE001  # sent to the node; other connections continue
            answer = f"{type(error).__name__}: {error}"
        self._transport.write(b"%d\n" % answer if isinstance(answer, int) else json.dumps(answer).encode() + b"\n")


def _parse_parcel(line: bytes | bytearray) -> tuple[Parcel, int]:
    """Return a parcel and the number of bytes after it.

    Raises:
        ValueError: The line is not the header of a parcel.
        RecursionError: It is nested too deeply.
    """
    match json.loads(line):
        case [str(node), int(offset), int(dropped), str() | None as target, int(size)] if (
            _is_name(node)
            and 0 <= offset <= _MAX_COUNT
            and 0 <= dropped <= _MAX_COUNT
            and (target is None or _is_name(target))
            and 0 <= size <= MAX_PARCEL_BYTES
        ):
            return Parcel(node, offset, dropped, target), size
    raise ValueError("not a parcel")


def _is_name(value: Any) -> bool:
    return 0 < len(value) <= _MAX_NAME_CHARACTERS and bool(value.isprintable())


class Wire:
    """A connection to a receiver.

    Args:
        address: The address of the receiver.

    Raises:
        OSError: The connection failed.
    """

    def __init__(self, address: Address) -> None:
        self._socket = socket.create_connection((address.host, address.port), timeout=_CONNECT_SECONDS)
        self._socket.settimeout(_ANSWER_SECONDS)
        self._answers = self._socket.makefile("rb")
        self._greeting = address.secret.encode() + b"\n"

    def send(self, parcel: Parcel, lines: bytes) -> int:
        """Send lines of a journal, `MAX_PARCEL_BYTES` at most; return the offset up to which the hub has everything.

        Raises:
            OSError: The connection has broken and cannot be used again.
            RefusedError: The hub rejected the parcel.
        """
        header = json.dumps([*parcel, len(lines)]).encode()
        self._socket.sendall(self._greeting + header + b"\n" + lines)
        self._greeting = b""
        answer = self._answers.readline()
        if not answer.endswith(b"\n"):
            raise ConnectionError("the hub closed the connection")
        offset = json.loads(answer)
        if not isinstance(offset, int):
            raise RefusedError(f"the hub rejected lines of the journal of {parcel.node}: {offset}")
        return offset

    def close(self) -> None:
        """Close the connection."""
        self._answers.close()
        self._socket.close()
