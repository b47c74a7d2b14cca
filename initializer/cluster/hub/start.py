"""Starting a hub, and telling it of a process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from phasebus.initializer.cluster.hub.actor import HubActor
from phasebus.initializer.cluster.hub.sender import JournalSender
from phasebus.initializer.cluster.hub.wire import Address, Parcel, Wire
from phasebus.initializer.config import ServiceConfig
from phasebus.initializer.ray.actors import create_actor, end_actor, here
from phasebus.initializer.ray.calls import answer_within
from phasebus.telemetry.service import Server

_ANSWER_SECONDS = 15.0


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
async def running_hub(host: str, port: int, trace_url: str | None) -> AsyncIterator[Any]:
    """Run a hub on this process's own node of Ray's; give Ray's handle of it, without waiting until it is there."""
    about = (host, port, trace_url)
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

    sender = JournalSender(journal, send)
    sender.start()
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(sender.close)
            way.close()


class _Way:
    """The way to a hub that may die and come back: a wire to where Ray says it is, or through Ray where that is walled off."""

    def __init__(self, hub: Any) -> None:
        self._hub = hub
        self._wire: Wire | None = None
        self._walled_off: Address | None = None

    def send(self, parcel: Parcel, lines: bytes) -> int:
        """Send lines of a journal; see `Wire.send`."""
        if self._wire is None:
            address = Address(*answer_within(self._hub.address.remote(), _ANSWER_SECONDS))
            try:
                if address != self._walled_off:
                    self._wire = Wire(address)
            except OSError:
                self._walled_off = address
        if self._wire is None:
            return int(answer_within(self._hub.take.remote(parcel, lines), _ANSWER_SECONDS))
        try:
            return self._wire.send(parcel, lines)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Hang up."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None


def _nobody() -> Any:
    """Make nothing: the server that this would make the application of is never started."""
