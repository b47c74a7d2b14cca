"""The hub's process; made an actor, which Ray starts again whenever it dies, by `phasebus.initializer.ray.actors`."""

from __future__ import annotations

from functools import partial
from threading import Lock
from typing import Any

from phasebus import __version__
from phasebus.initializer.cluster.hub.app import build_hub_app
from phasebus.initializer.cluster.hub.board import Board
from phasebus.initializer.cluster.hub.wire import Address, Parcel, Receiver
from phasebus.initializer.ray.actors import node_address
from phasebus.telemetry.service import Server


class HubActor:
    """Takes what the nodes send, one after the other, and serves it from a thread of its own.

    Args:
        host: The address it listens on.
        port: The port.
        trace_url: Where its page links to for a trace; see `Timeline`.
    """

    def __init__(self, host: str, port: int, trace_url: str | None = None) -> None:
        self._board = Board(__version__, trace_url)
        self._lock = Lock()
        self._server = Server(partial(build_hub_app, self._board, self._lock), host, port, name="hub")
        self._server.start()
        self._receiver = Receiver(self.take, node_address())
        self._receiver.start()

    def address(self) -> Address:
        """Return where it receives what the nodes send."""
        return self._receiver.address

    def take(self, parcel: Parcel, lines: bytes) -> int:
        """Take lines of a node's journal; see `Board.take`. For those who cannot reach its address."""
        with self._lock:
            return self._board.take(parcel.node, parcel.offset, lines, dropped=parcel.dropped, target=parcel.target)

    def open_steps(self, node: str) -> list[dict[str, Any]]:
        """Return what a node has begun and not ended; see `Board.open_steps`."""
        with self._lock:
            return self._board.open_steps(node)
