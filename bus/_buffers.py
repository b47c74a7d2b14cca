"""Bounded buffers between a publisher and those who only watch.

A publisher never waits for a buffer unless it was asked to (``overflow="block"``).
"""

from __future__ import annotations

import contextlib
import queue
from collections import deque
from collections.abc import Callable
from contextvars import Context as ContextVars
from typing import Any, Literal

import anyio

from phasebus.bus._loops import call_soon_here

Overflow = Literal["drop_oldest", "block"]

Item = tuple[Any, Any, ContextVars]
"""An event, as the top of a trail; its context, or None; and the publisher's context variables."""


class TaskBuffer:
    """A buffer that a task of the publisher's own loop empties."""

    __slots__ = ("_arrived", "_ended", "_items", "_limit", "_taken", "drops")

    def __init__(self, limit: int) -> None:
        self._items: deque[Item] = deque()
        self._limit = limit
        self._ended = False
        self._arrived: anyio.Event | None = None
        self._taken: anyio.Event | None = None
        self.drops = 0

    @property
    def full(self) -> bool:
        """Whether the next item pushes the oldest one out."""
        return len(self._items) >= self._limit

    def put(self, item: Item) -> None:
        """Add `item`; the oldest one is dropped, and counted, when there is no room."""
        if self._ended:
            self.drops += 1
            return
        if len(self._items) >= self._limit:
            self._items.popleft()
            self.drops += 1
        self._items.append(item)
        if self._arrived is not None:
            self._arrived.set()

    async def room(self) -> None:
        """Wait until the buffer is not full, or has ended."""
        while self.full and not self._ended:
            if self._taken is None:
                self._taken = anyio.Event()
            await self._taken.wait()

    def end(self) -> None:
        """Let `take` return None once everything put so far is taken; refuse, and count, what still comes."""
        self._ended = True
        for event in (self._arrived, self._taken):
            if event is not None:
                event.set()

    async def take(self) -> Item | None:
        """Take the oldest item, waiting for one if need be; None when the buffer has ended."""
        while not self._items:
            if self._ended:
                return None
            if self._arrived is None:
                self._arrived = anyio.Event()
            await self._arrived.wait()
            self._arrived = None
        item = self._items.popleft()
        if self._taken is not None:
            self._taken.set()
            self._taken = None
        return item


class ThreadBuffer:
    """A buffer that a thread empties; only `take` may be called in that thread."""

    __slots__ = ("_ended", "_items", "_limit", "_soon", "_taken", "drops")

    def __init__(self, limit: int) -> None:
        self._items: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._limit = limit
        self._ended = False
        self._soon: Callable[[Callable[[], object]], object] | None = None
        self._taken: anyio.Event | None = None
        self.drops = 0

    @property
    def full(self) -> bool:
        """Whether the next item pushes the oldest one out."""
        return self._items.qsize() >= self._limit

    def put(self, item: Item) -> None:
        """Add `item`; the oldest one is dropped, and counted, when there is no room."""
        if self._ended:
            self.drops += 1
            return
        if self._items.qsize() >= self._limit:
            with contextlib.suppress(queue.Empty):
                self._items.get_nowait()
                self.drops += 1
        self._items.put(item)

    async def room(self) -> None:
        """Wait until the buffer is not full, or has ended."""
        self._soon = call_soon_here()
        while self.full and not self._ended:
            if self._taken is None:
                self._taken = anyio.Event()
            if self.full:  # again, now that the thread can see whom to wake
                await self._taken.wait()

    def end(self) -> None:
        """Let `take` return None once everything put so far is taken; refuse, and count, what still comes."""
        if not self._ended:
            self._ended = True
            self._items.put(None)
            if self._taken is not None:
                self._taken.set()

    def take(self) -> Item | None:
        """Take the oldest item, blocking until there is one; None when the buffer has ended."""
        item = self._items.get()
        if self._taken is not None and self._soon is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and with it whoever waited
                self._soon(self._wake)
        return item

    def _wake(self) -> None:
        taken, self._taken = self._taken, None
        if taken is not None:
            taken.set()
