"""Starting a hub, and telling it of a process."""

from __future__ import annotations

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
from phasebus.telemetry.service import Server

_ANSWER_SECONDS = 15.0
_THROUGH_RAY_SECONDS = 60.0
"""How long a node that found no wire to the hub sends through Ray before it looks for one again."""


def chosen_port(service: ServiceConfig) -> int | None:
    """Return the port of the hub: the configured one, or a free one for 0; None if there is to be no hub.

    It has to be known beforehand: a hub that comes back is to be found where it was.

    Raises:
        PortTakenError: It cannot be had.
    """
    if service.port is None:
        return None
    probe = Server(_nobody, service.host, service.port, name="hub")
    probe.close()
    return probe.port


@asynccontextmanager
async def running_hub(host: str, port: int, trace_url: str | None, *, own_ray: bool) -> AsyncIterator[Any]:
    """Run a hub on this process's own node of Ray's; give Ray's handle of it, without waiting until it is there.

    Args:
        host: Where it serves.
        port: The port there.
        trace_url: See `Timeline`.
        own_ray: Whether Ray is one of our own, all of which is on this machine.
    """
    about = (host, port, trace_url, "127.0.0.1" if own_ray else node_address())
    hub = await create_actor(HubActor, *about, resources={}, runtime_env={}, node=here(), restarts=-1, threads=1)
    try:
        yield hub
    finally:
        with anyio.CancelScope(shield=True):
            await end_actor(hub)


@asynccontextmanager
async def told(
    hub: Any, node: str, journal: Path, *, dropped: Callable[[], int] = lambda: 0, target: str | None = None
) -> AsyncIterator[None]:
    """Have the hub told of what the journal of this process has, until the end of the block and what came last in it.

    Args:
        hub: Ray's handle of the hub; None tells nobody.
        node: What this process is called.
        journal: Its journal.
        dropped: Returns how many events the journal has had no room for.
        target: Where the metrics of this process are, ``host:port``.
    """
    if hub is None:
        yield
        return

    way = _Way(hub)

    def send(offset: int, lines: bytes) -> int:
        return way.send(Parcel(node, offset, dropped(), target), lines)

    sender = JournalSender(journal, send, way.hang_up)
    sender.start()
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(sender.close)


class _Way:
    """The way to a hub that may die and come back: a wire to where Ray says it is, or through Ray where that is walled off.

    Used by one thread.
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
            return int(answer_within(self._hub.take.remote(parcel, lines), _ANSWER_SECONDS))
        try:
            offset = self._wire.send(parcel, lines)
        except OSError:
            if not self._answered:  # whoever took the call, it is not the hub
                self._give_up()
            self.hang_up()
            raise
        self._answered = True
        return offset

    def hang_up(self) -> None:
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
        self._give_up()

    def _give_up(self) -> None:
        self._through_ray_until = time.monotonic() + _THROUGH_RAY_SECONDS


def _nobody() -> Any:
    """Make nothing: the server that this would make the application of is never started."""
