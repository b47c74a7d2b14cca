"""The hub's process. `phasebus.initializer.ray.actors` makes it an actor that Ray restarts whenever it dies."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from threading import Lock
from typing import Final

from phasebus import __version__
from phasebus.initializer.cluster.hub.app import build_hub_app
from phasebus.initializer.cluster.hub.recorder import JournalRecorder
from phasebus.initializer.cluster.hub.state import ClusterState
from phasebus.initializer.cluster.hub.wire import Address, Parcel, Receiver
from phasebus.telemetry.journal import RecordedStep
from phasebus.telemetry.service import Access, Server

_SWITCH_SECONDS: Final = 0.0005
"""A tenth of Python's: a probe waits several times until the thread that receives, or one that renders, gives up the GIL."""


class HubActor:
    """Receives the nodes' journals, one parcel at a time, and runs an HTTP service in a thread of its own.

    Args:
        host: The address of its HTTP service.
        port: The port of its HTTP service.
        trace_url: The URL of a trace, for the links on its page; see `Timeline`.
        receive_at: The address at which nodes connect to it. Without one, nodes send through Ray; also if Ray encrypts its
            connections, because the wire is not encrypted.
        access: The host names and the token of its HTTP service.
    """

    def __init__(
        self,
        host: str,
        port: int,
        trace_url: str | None = None,
        receive_at: str | None = None,
        access: Access | None = None,
    ) -> None:
        sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_SECONDS))
        self._state = ClusterState(__version__, trace_url)
        self._lock = Lock()
        self._recorder = JournalRecorder()
        self._server = Server(partial(build_hub_app, self._state, self._lock), host, port, name="hub", access=access)
        self._server.start()
        self._address: Address | None = None
        if receive_at is not None and os.environ.get("RAY_USE_TLS", "0") not in ("1", "true"):
            with suppress(OSError):  # the address may exist only outside this machine, behind address translation
                receiver = Receiver(self.receive, receive_at)
                receiver.start()
                self._address = receiver.address

    def address(self) -> Address | None:
        """Return the address that nodes send their journals to; None if they send through Ray."""
        return self._address

    def receive(self, parcel: Parcel, lines: bytes) -> int:
        """Apply lines of a node's journal; see `ClusterState.receive`. Nodes that cannot connect call it through Ray."""
        with self._lock:
            offset = self._state.receive(
                parcel.node, parcel.offset, lines, dropped=parcel.dropped, target=parcel.target
            )
        if offset == parcel.offset + len(lines):
            self._recorder.put(parcel.node, parcel.offset, lines)
        return offset

    def running_steps(self, node: str) -> Sequence[RecordedStep]:
        """Return the steps of a node that have begun and not ended; see `ClusterState.running_steps`."""
        with self._lock:
            return self._state.running_steps(node)

    def mark_as_stopping(self) -> None:
        """Report a ready cluster as not ready: its nodes end, running requests finish, and no more should arrive."""
        with self._lock:
            self._state.stopping = True
