"""Streams: events as an asynchronous iterator."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import Context as ContextVars
from types import TracebackType
from typing import Generic, NoReturn, Self, TypeVar

from anyio.lowlevel import checkpoint_if_cancelled

from phasebus.bus._buffers import Overflow, TaskBuffer
from phasebus.bus._errors import BusStateError
from phasebus.bus._selectors import Selector
from phasebus.bus._stats import SubscriberStats
from phasebus.bus._watcher import Watcher

E = TypeVar("E")


class Stream(Watcher, Generic[E]):
    """The events of one selector, until the bus closes; made by `Bus.stream`. Any number of tasks may share it."""

    buffer: TaskBuffer

    def __init__(self, name: str, selector: Selector, limit: int, overflow: Overflow, past: Sequence[object]) -> None:
        super().__init__(
            TaskBuffer(name, max(limit, len(past))), selector, overflow
        )  # what was asked for is not dropped
        self._taken = 0
        for event in past:
            self.put((event, None, _NO_VARIABLES))

    @property
    def dropped(self) -> int:
        """How many events were dropped because the buffer was full."""
        return self.buffer.drops

    def stats(self) -> SubscriberStats:
        """Return its counts so far."""
        return SubscriberStats(name=self.name, role="observer", calls=self._taken, drops=self.buffer.drops)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E:
        await checkpoint_if_cancelled()  # a reader that is cancelled must not take an event with it
        item = await self.buffer.take()
        if item is None:
            raise StopAsyncIteration
        self._taken += 1
        event: E = item[0]
        return event


class StreamOpening(AbstractAsyncContextManager[Stream[E]]):
    """What `Bus.stream` returns: ``async with`` opens the stream.

    Args:
        opening: Opens and closes it.
    """

    def __init__(self, opening: AbstractAsyncContextManager[Stream[E]]) -> None:
        self._opening = opening

    async def __aenter__(self) -> Stream[E]:
        return await self._opening.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> bool | None:
        return await self._opening.__aexit__(kind, error, at)

    def __aiter__(self) -> NoReturn:
        raise BusStateError(
            "this stream is not open; open it first: async with bus.stream(…) as events: async for event in events: …"
        )


_NO_VARIABLES = ContextVars()
