"""Streams: events as an asynchronous iterator."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import copy_context
from typing import Any, Self

from phasebus.bus._buffers import Overflow, TaskBuffer
from phasebus.bus._selectors import Selector
from phasebus.bus._stats import SubscriberStats
from phasebus.bus._trail import event_of


class Stream:
    """The events of one selector, until the bus closes; made by `Bus.stream`."""

    def __init__(self, name: str, selector: Selector, limit: int, overflow: Overflow, past: Sequence[object]) -> None:
        self.name = name
        self.selector = selector
        self.overflow = overflow
        self.takes_context = False
        self.buffer = TaskBuffer(max(limit, len(past)))  # what was asked for is not dropped
        self._taken = 0
        for event in past:
            self.buffer.put((event, None, copy_context()))

    @property
    def dropped(self) -> int:
        """How many events came when the buffer was full, and pushed out older ones."""
        return self.buffer.drops

    def stats(self) -> SubscriberStats:
        """Return how much has gone through it so far."""
        return SubscriberStats(name=self.name, role="observer", calls=self._taken, drops=self.buffer.drops)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        item = await self.buffer.take()
        if item is None:
            raise StopAsyncIteration
        self._taken += 1
        return event_of(item[0])
