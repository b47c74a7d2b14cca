"""The hub's process; made an actor, which Ray starts again whenever it dies, by `phasebus.initializer.ray.actors`."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from threading import Lock
from typing import Any

from phasebus import __version__
from phasebus.initializer.cluster.hub.app import build_hub_app
from phasebus.initializer.cluster.hub.state import Board
from phasebus.initializer.cluster.hub.wire import Address, Parcel, Receiver
from phasebus.telemetry.service import Server


class HubActor:
    """Takes what the nodes send, one after the other, and serves it from a thread of its own.

    Args:
        host: The address it listens on.
        port: The port.
        trace_url: Where its page links to for a trace; see `Timeline`.
        receive_at: The address at which nodes reach this one; without one they send through Ray. So they do where Ray
            encrypts what it carries, which the wire does not.
    """

    def __init__(self, host: str, port: int, trace_url: str | None = None, receive_at: str | None = None) -> None:
        self._board = Board(__version__, trace_url)
        self._lock = Lock()
        self._server = Server(partial(build_hub_app, self._board, self._lock), host, port, name="hub")
        self._server.start()
        self._address: Address | None = None
        if receive_at is not None and os.environ.get("RAY_USE_TLS", "0") not in ("1", "true"):
            with suppress(OSError):  # an address that others know this machine by may be none of its own
                receiver = Receiver(self.take, receive_at)
                receiver.start()
                self._address = receiver.address

    def address(self) -> Address | None:
        """Return where it receives what the nodes send; None if that goes through Ray."""
        return self._address

    def take(self, parcel: Parcel, lines: bytes) -> int:
        """Take lines of a node's journal; see `Board.take`. For those who cannot reach its address."""
        with self._lock:
            return self._board.take(parcel.node, parcel.offset, lines, dropped=parcel.dropped, target=parcel.target)

    def open_steps(self, node: str) -> list[dict[str, Any]]:
        """Return what a node has begun and not ended; see `Board.open_steps`."""
        with self._lock:
            return self._board.open_steps(node)
