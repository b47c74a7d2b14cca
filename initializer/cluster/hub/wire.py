"""The wire on which journals come to the hub: a call of Ray's costs the hub half a millisecond, a parcel here a seventh of it.

A connection begins with the hub's secret and a newline. Parcels follow: a line of JSON, the fields of `Parcel` and how many
bytes of the journal come after it, and these. Each is answered with a line of JSON: the offset up to which the hub has that
journal, or in a string why the parcel was not taken.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
import socket
import threading
from collections.abc import Callable
from typing import Final, NamedTuple, cast

from phasebus.bus import PhasebusError

MOST_BYTES: Final = 128 * 1024
"""How much of a journal a parcel may carry."""

_LONGEST_LINE: Final = 16 * 1024
_CONNECT_SECONDS: Final = 3.0
_ANSWER_SECONDS: Final = 5.0
"""Less than the silence after which the hub calls a node lost."""

_STRANGER_SECONDS: Final = 10.0
"""How long somebody may take to say the secret, in seconds."""


class Parcel(NamedTuple):
    """What a node sends at once.

    Attributes:
        node: The node.
        offset: Where in its journal the lines begin, in bytes.
        dropped: How many events the journal has had no room for.
        target: Where the node's own metrics are, ``host:port``.
    """

    node: str
    offset: int
    dropped: int = 0
    target: str | None = None


class Address(NamedTuple):
    """Where a receiver listens, and what one has to know to be heard."""

    host: str
    port: int
    secret: str


Take = Callable[[Parcel, bytes], int]
"""Takes lines of a journal; returns the offset up to which everything is there."""


class RefusedError(PhasebusError):
    """Raised when the hub was reached and did not take a parcel."""


class Receiver:
    """Receives parcels, in a thread of its own.

    Args:
        take: Called there with each, one after the other.
        host: The address to listen on; the port is a free one.
    """

    def __init__(self, take: Take, host: str) -> None:
        self._take = take
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, 0), family=family, backlog=1024)
        self.address = Address(host, self._socket.getsockname()[1], secrets.token_hex(16))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="phasebus hub receiver", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """Receive no more."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        connections: set[asyncio.Transport] = set()

        def connection() -> _Connection:
            return _Connection(self._take, self.address.secret.encode(), connections)

        server = self._loop.run_until_complete(self._loop.create_server(connection, sock=self._socket))
        self._loop.run_forever()
        server.close()
        for transport in connections:
            transport.abort()
        self._loop.run_until_complete(server.wait_closed())
        self._loop.close()


class _Connection(asyncio.Protocol):
    """One node's end of the wire."""

    _transport: asyncio.Transport

    def __init__(self, take: Take, secret: bytes, connections: set[asyncio.Transport]) -> None:
        self._take = take
        self._secret = secret
        self._connections = connections
        self._trusted = False
        self._waiting = bytearray()
        self._parcel: Parcel | None = None
        self._bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        end: socket.socket = transport.get_extra_info("socket")
        end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a machine that is lost says no goodbye
        asyncio.get_running_loop().call_later(_STRANGER_SECONDS, self._hang_up_on_a_stranger)
        self._connections.add(self._transport)

    def connection_lost(self, _: Exception | None) -> None:
        self._connections.discard(self._transport)

    def _hang_up_on_a_stranger(self) -> None:
        if not self._trusted:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._waiting += data
        try:
            while self._advance():
                pass
        except (ValueError, TypeError):  # whoever that is, it is no node
            self._transport.abort()

    def _advance(self) -> bool:
        """Do what can be done with what has come; return whether there may be more to do."""
        if self._parcel is not None:
            if len(self._waiting) < self._bytes:
                return False
            self._answer(self._parcel, bytes(self._cut(self._bytes)))
            self._parcel = None
            return True
        end = self._waiting.find(b"\n")
        if end < 0:
            if len(self._waiting) > _LONGEST_LINE:
                raise ValueError("a line without an end")
            return False
        line = self._cut(end + 1)
        if not self._trusted:
            if not hmac.compare_digest(line[:-1], self._secret):
                raise ValueError("a stranger")
            self._trusted = True
            return True
        *said, self._bytes = json.loads(line)
        if not 0 <= self._bytes <= MOST_BYTES:
            raise ValueError("too many bytes")
        self._parcel = Parcel(*said)
        return True

    def _cut(self, size: int) -> bytearray:
        cut = self._waiting[:size]
        del self._waiting[:size]
        return cut

    def _answer(self, parcel: Parcel, lines: bytes) -> None:
        try:
            answer: int | str = self._take(parcel, lines)
        except Exception as error:  # noqa: BLE001  # whatever it is, the sender is told, and the others go on
            answer = f"{type(error).__name__}: {error}"
        self._transport.write(json.dumps(answer).encode() + b"\n")


class Wire:
    """A connection to a receiver.

    Args:
        address: Where that is.

    Raises:
        OSError: It cannot be reached.
    """

    def __init__(self, address: Address) -> None:
        self._socket = socket.create_connection((address.host, address.port), timeout=_CONNECT_SECONDS)
        self._socket.settimeout(_ANSWER_SECONDS)
        self._answers = self._socket.makefile("rb")
        self._greeting = address.secret.encode() + b"\n"

    def send(self, parcel: Parcel, lines: bytes) -> int:
        """Send lines of a journal, `MOST_BYTES` at most; return the offset up to which the hub has everything.

        Raises:
            OSError: The connection has broken; nothing more can be sent on it.
            RefusedError: The hub could not read it.
        """
        said = json.dumps([*parcel, len(lines)]).encode()
        self._socket.sendall(self._greeting + said + b"\n" + lines)
        self._greeting = b""
        answer = self._answers.readline()
        if not answer.endswith(b"\n"):
            raise ConnectionError("it has hung up")
        offset = json.loads(answer)
        if not isinstance(offset, int):
            raise RefusedError(f"it did not take lines of the journal of {parcel.node}: {offset}")
        return offset

    def close(self) -> None:
        """Hang up."""
        self._answers.close()
        self._socket.close()
