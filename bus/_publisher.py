"""What the parts of a bus need to know of the bus: its name, and how to publish."""

from __future__ import annotations

from typing import Protocol

from phasebus.bus._context import Context
from phasebus.bus._outcome import Outcome
from phasebus.bus._view import View


class Publisher(Protocol):
    """The publishing side of a bus.

    Attributes:
        name: Its name in messages.
        closed: Whether it was open, and is no more.
    """

    name: str
    closed: bool

    async def publish(self, event: object, context: Context | View | None = None) -> Outcome:
        """Publish `event`; see `Bus.publish`."""
