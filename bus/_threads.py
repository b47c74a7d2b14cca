"""The way into a bus from other threads."""

from __future__ import annotations

from threading import get_ident

import anyio
import anyio.from_thread
from anyio.lowlevel import EventLoopToken

from phasebus.bus._calls import thread_waits
from phasebus.bus._context import Context
from phasebus.bus._errors import BusStateError, PhasebusError, WrongThreadError
from phasebus.bus._loops import cancellation_requested
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
            BusStateError: The bus is closed, or was closed before the outcome was there.
            WrongThreadError: This is the bus's own thread, which would wait for itself.
        """
        if self.is_here:
            raise WrongThreadError("this is the bus's own thread: `await bus.publish(…)` here, not bus.threads()")
        try:
            outcome, error = anyio.from_thread.run(self._publish, event, context, token=self._token)
        except (anyio.RunFinishedError, RuntimeError) as error:
            if self.bus.closed and not isinstance(error, PhasebusError):
                raise self._closed() from error
            raise
        if error is not None:
            raise error
        return outcome

    async def _publish(
        self, event: object, context: Context | View | None
    ) -> tuple[Outcome, SystemExit | BusStateError | None]:
        """Publish; return the outcome and an error for the calling thread to raise.

        A ``sys.exit`` of a subscriber is one, as it must not end this loop; so is the end of the loop, as its cancellation
        means nothing in another thread.
        """
        thread_waits.set(True)
        try:
            return await self.bus.publish(event, context), None
        except SystemExit as error:
            return Outcome(), error
        except anyio.get_cancelled_exc_class():
            if not (self.bus.closed and cancellation_requested()):
                raise
            return Outcome(), self._closed()

    def _closed(self) -> BusStateError:
        return BusStateError(f"the bus {self.bus.name!r} is closed, and its event loop has ended")
