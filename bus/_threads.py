"""The way into a bus from other threads."""

from __future__ import annotations

from threading import get_ident

import anyio
import anyio.from_thread
from anyio.lowlevel import EventLoopToken

from phasebus.bus._context import Context
from phasebus.bus._errors import BusStateError, PhasebusError, WrongThreadError
from phasebus.bus._outcome import Outcome
from phasebus.bus._publisher import Publisher
from phasebus.bus._view import View


class Threads:
    """Publishes on a bus from any thread but the bus's own; made by `Bus.threads`.

    Attributes:
        bus: The bus.
    """

    __slots__ = ("_thread", "_token", "bus")

    def __init__(self, bus: Publisher, thread: int, token: EventLoopToken) -> None:
        self.bus = bus
        self._thread = thread
        self._token = token

    @property
    def is_here(self) -> bool:
        """Whether this is the bus's own thread, in which this way of publishing would wait for itself."""
        return get_ident() == self._thread

    def publish(self, event: object, context: Context | View | None = None) -> Outcome:
        """Publish `event` in the bus's loop, and wait for the outcome; see `Bus.publish`.

        Raises:
            BusStateError: The bus is closed.
            WrongThreadError: This is the bus's own thread, which would wait for itself.
        """
        if self.is_here:
            raise WrongThreadError("this is the bus's own thread: `await bus.publish(…)` here, not bus.threads()")
        try:
            outcome, exit_ = anyio.from_thread.run(self._publish, event, context, token=self._token)
        except (anyio.RunFinishedError, RuntimeError) as error:
            if self.bus.closed and not isinstance(error, PhasebusError):
                raise BusStateError(f"the bus {self.bus.name!r} is closed, and its event loop has ended") from error
            raise
        if exit_ is not None:
            raise exit_
        return outcome

    async def _publish(self, event: object, context: Context | View | None) -> tuple[Outcome, SystemExit | None]:
        """Publish; a ``sys.exit`` of a subscriber is raised in the calling thread, and does not end this loop."""
        try:
            return await self.bus.publish(event, context), None
        except SystemExit as error:
            return Outcome(), error
