"""Starting a hub, and forwarding a process's journal to it."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from phasebus.initializer.cluster.hub.actor import HubActor
from phasebus.initializer.cluster.hub.sender import JournalSender
from phasebus.initializer.cluster.hub.wire import Address, Parcel, Wire
from phasebus.initializer.node.config import ServiceConfig
from phasebus.initializer.ray.actors import create_actor, end_actor, here, node_address
from phasebus.initializer.ray.calls import answer_within
from phasebus.telemetry.service import Access, Server

_ANSWER_SECONDS = 15.0
_THROUGH_RAY_SECONDS = 60.0
"""Time that a node which cannot connect to the hub sends through Ray before it retries the connection."""


def chosen_port(service: ServiceConfig) -> int | None:
    """Return the port of the hub: the configured one, or a free one for 0; None for no hub.

    It is chosen before the hub starts, because a restarted hub must use the same port.

    Raises:
        PortTakenError: The port cannot be bound.
    """
    if service.port is None:
        return None
    probe = Server(_no_app, service.host, service.port, name="hub")
    probe.close()
    return probe.port


@asynccontextmanager
async def running_hub(
    host: str, port: int, trace_url: str | None, *, own_ray: bool, access: Access | None = None
) -> AsyncIterator[Any]:
    """Run a hub on the Ray node of this process. Yields Ray's handle of the hub at once, before the hub has started.

    Args:
        host: The address of its HTTP service.
        port: The port of its HTTP service.
        trace_url: See `Timeline`.
        access: The host names and the token of its HTTP service.
        own_ray: Whether this process started Ray, which then runs on this machine only.
    """
    arguments = (host, port, trace_url, "127.0.0.1" if own_ray else node_address(), access)
    hub = await create_actor(HubActor, *arguments, resources={}, runtime_env={}, node=here(), restarts=-1, threads=1)
    try:
        yield hub
    finally:
        with anyio.CancelScope(shield=True):
            await end_actor(hub)


@asynccontextmanager
async def forwarding_journal(
    hub: Any, node: str, journal: Path, *, dropped: Callable[[], int] = lambda: 0, target: str | None = None
) -> AsyncIterator[None]:
    """Forward the journal of this process to the hub until the end of the block, including the last lines.

    Args:
        hub: Ray's handle of the hub; None forwards nothing.
        node: The name of this process.
        journal: The path of its journal. If the file does not exist, nothing is forwarded.
        dropped: Returns the number of events that the journal's buffer has dropped.
        target: The address of this process's own /metrics, ``host:port``.
    """
    if hub is None or not _exists(journal):
        yield
        return

    connection = HubConnection(hub)

    def send(offset: int, lines: bytes) -> int:
        return connection.send(Parcel(node, offset, dropped(), target), lines)

    sender = JournalSender(journal, send, connection.close)
    sender.start()
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(sender.close)


class HubConnection:
    """The connection to a hub that may be restarted: a `Wire` to the hub's address, or calls through Ray if that fails.

    For use by one thread.

    Args:
        hub: Ray's handle of the hub.
    """

    def __init__(self, hub: Any) -> None:
        self._hub = hub
        self._wire: Wire | None = None
        self._answered = False
        self._through_ray_until = 0.0

    def send(self, parcel: Parcel, lines: bytes) -> int:
        """Send lines of a journal; see `Wire.send`."""
        if self._wire is None and time.monotonic() >= self._through_ray_until:
            self._connect()
        if self._wire is None:
            return int(answer_within(self._hub.receive.remote(parcel, lines), _ANSWER_SECONDS))
        try:
            offset = self._wire.send(parcel, lines)
        except OSError:
            if not self._answered:  # another program may listen at that address
                self._send_through_ray()
            self.close()
            raise
        self._answered = True
        return offset

    def close(self) -> None:
        """Close the wire, if there is one."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def _connect(self) -> None:
        address = answer_within(self._hub.address.remote(), _ANSWER_SECONDS)
        self._answered = False
        try:
            if address is not None:
                self._wire = Wire(Address(*address))
                return
        except OSError:
            pass
        self._send_through_ray()

    def _send_through_ray(self) -> None:
        self._through_ray_until = time.monotonic() + _THROUGH_RAY_SECONDS


def _no_app() -> Any:
    """Return no application; the server is never started."""


def _exists(journal: Path) -> bool:
    return os.path.exists(journal)
