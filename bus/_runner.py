"""`CallbackRunner`: a list of callbacks, run phase by phase."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from types import TracebackType
from typing import Any, Self, cast

from phasebus.bus._bus import Bus
from phasebus.bus._checks import shown
from phasebus.bus._context import Context
from phasebus.bus._errors import CallbackSignatureError
from phasebus.bus._events import PhaseEvent, phase_event
from phasebus.bus._forms import Callback, Handler, events_of, shape_of
from phasebus.bus._observers import Observation, Observer, is_observer
from phasebus.bus._subscription import Subscription


class CallbackRunner:
    """Runs callbacks for phases known by their names.

    With observers among the callbacks it has to be opened: ``async with CallbackRunner([…]) as runner``.

    Args:
        callbacks: Callbacks and observers, in the order they run.
        bus: The bus they are put on; a new one by default.
    """

    def __init__(self, callbacks: Iterable[Handler[Any] | Observer], *, bus: Bus | None = None) -> None:
        self.bus = Bus() if bus is None else bus
        subscribe_all(self.bus, callbacks)

    async def run(self, phase: str, config: Any = None, data: MutableMapping[str, Any] | None = None) -> dict[str, Any]:
        """Run every callback for `phase`; return the data with all that they returned merged into it.

        Args:
            phase: The name of the phase.
            config: The configuration that the callbacks are called with.
            data: What they share; it is changed in place. Empty by default.
        """
        if isinstance(data, Context):
            context = data
        elif isinstance(data, dict):
            context = Context.over(data)  # what callbacks commit is in `data` at once, also for others that run on it
        else:
            context = Context(data)
        try:
            await self.bus.publish(phase_event(phase)(config=config), context)
        finally:
            result = dict(context)
            if data is not None and not isinstance(data, dict | Context):
                data.clear()
                data.update(result)
        return result

    async def __aenter__(self) -> Self:
        await self.bus.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.bus.__aexit__(kind, error, at)


def subscribe_all(bus: Bus, callbacks: Iterable[Handler[Any] | Observer]) -> list[Subscription | Observation]:
    """Put `callbacks` on `bus`: observers as such, the others for the events that their first argument names.

    Returns the handle of each, in their order.

    Raises:
        CallbackSignatureError: One of them is no callback, or `callbacks` is not a collection of them.
    """
    if isinstance(callbacks, Mapping | str) or not isinstance(callbacks, Iterable):
        raise CallbackSignatureError(f"callbacks is a list of callables, not {shown(callbacks)}")
    handles: list[Subscription | Observation] = []
    for callback in callbacks:
        if is_observer(callback):
            handles.append(bus.observe(None, callback))
        else:
            function = cast("Callback", callback)
            handles.append(bus.subscribe(events_of(function, shape_of(function).form, PhaseEvent), function))
    return handles
