"""What observers and streams have in common: events reach them through a buffer, and the publisher rarely waits."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, copy_context

from phasebus.bus._buffers import Item, Overflow, TaskBuffer, ThreadBuffer
from phasebus.bus._context import Context
from phasebus.bus._errors import BusStateError
from phasebus.bus._selectors import Selector
from phasebus.bus._stats import SubscriberStats
from phasebus.bus._thinning import Thinning
from phasebus.bus._view import View

observing: ContextVar[Watcher | None] = ContextVar("phasebus_observing", default=None)
"""The observer that this code runs for."""


class Watcher:
    """Receives events through a buffer, beside the publisher.

    Attributes:
        name: Its name, unique on its bus.
        selector: Which events it receives.
        buffer: The events that wait for it.
        put: Puts an event into the buffer.
        blocks: Whether the publisher waits when the buffer is full; else the oldest event is dropped.
        thinning: Lets a part of the events pass; None if it receives them all.
        takes_context: Whether it is called with the context, too.
    """

    def __init__(
        self,
        buffer: TaskBuffer | ThreadBuffer,
        selector: Selector,
        overflow: Overflow,
        thinning: Thinning | None = None,
        *,
        takes_context: bool = False,
    ) -> None:
        self.name = buffer.name
        self.selector = selector
        self.buffer = buffer
        self.put: Callable[[Item], object] = buffer.put
        self.blocks = overflow == "block"
        self.thinning = thinning
        self.takes_context = takes_context

    async def put_when_there_is_room(self, event: object, context: Context | View | None) -> None:
        """Put an event into the buffer as soon as it is not full.

        Raises:
            BusStateError: The caller is this observer, which would wait for itself.
        """
        if observing.get() is self:
            raise BusStateError(
                f"the observer {self.name!r} waits for its own buffer, which is full: it publishes what it observes; "
                "give it a larger buffer=, or overflow='drop_oldest'"
            )
        await self.buffer.room()
        self.put((event, context, copy_context()))

    def stats(self) -> SubscriberStats:
        """Return its counts so far."""
        raise NotImplementedError
