"""Bounded buffers between a publisher and those who only watch.

A publisher never waits for a buffer unless it was asked to (``overflow="block"``). It does let the event loop turn, once
for every half of a buffer it fills, so that a loop of publishes does not starve those who would empty it.
"""

from __future__ import annotations

import contextlib
import logging
import queue
from collections import deque
from collections.abc import Callable
from contextvars import Context as ContextVars
from typing import Any, Literal, get_args

import anyio
from anyio.lowlevel import checkpoint

from phasebus.bus._checks import count, one_of
from phasebus.bus._log import log
from phasebus.bus._loops import call_soon_here

Overflow = Literal["drop_oldest", "block"]

Item = tuple[Any, Any, ContextVars]
"""An event; its context, or None; and the publisher's context variables."""

MAX_TURNS = 128
"""How often a publisher lets the event loop turn at once, so that observers catch up with it."""

TURNS_IN_VAIN = 3
"""After so many turns in a row in which nothing was taken the publisher goes on: one would not do, as Trio runs tasks in random
order and `TaskBuffer.take` lets the loop turn, too. From then on one is enough, until something is taken during a turn."""

TAKES_IN_A_ROW = 64
"""After so many items taken without having waited for one, `TaskBuffer.take` lets the event loop turn."""


class Buffer:
    """What both kinds of buffer have in common.

    Args:
        name: The name of the observer or stream it belongs to.
        limit: How many items it holds.

    Attributes:
        name: The name of the observer or stream it belongs to.
        drops: How many items were dropped.
        until_turn: How many more items may be put before the publisher lets the event loop turn.
    """

    __slots__ = ("_ended", "_half", "_limit", "_patience", "_room", "drops", "name", "until_turn")

    def __init__(self, name: str, limit: int) -> None:
        self.name = name
        self.drops = 0
        self._limit = limit
        self._half = max(1, limit // 2)
        self.until_turn = self._half
        self._patience = TURNS_IN_VAIN
        self._ended = False
        self._room: anyio.Event | None = None

    def __len__(self) -> int:
        raise NotImplementedError

    @property
    def full(self) -> bool:
        """Whether the next item pushes the oldest one out."""
        return len(self) >= self._limit

    async def turns(self) -> None:
        """Let the event loop turn, and go on for as long as that empties the buffer to less than a half of it."""
        in_vain = 0
        for _ in range(MAX_TURNS):
            before = len(self)
            await checkpoint()
            if len(self) < before:
                in_vain, self._patience = 0, TURNS_IN_VAIN
            else:
                in_vain += 1
            if len(self) < self._half or in_vain >= self._patience:
                break
        if in_vain:
            self._patience = 1
        self.until_turn = self._half

    async def room(self) -> None:
        """Wait until the buffer is not full, or has ended."""
        while self.full and not self._ended:
            if self._room is None:
                self._room = anyio.Event()
            if self.full:  # again, now that the thread that empties it can see the event to set
                await self._room.wait()

    def _make_room(self) -> None:
        self._room = _wake(self._room)

    def _count_drop(self) -> None:
        """Count an item that was dropped because the buffer was full, and log the first one."""
        if not self.drops:
            log(
                logging.WARNING,
                "%r is slower than its events: its buffer of %d is full, so the oldest event was dropped, and so are more "
                "to come (`Bus.stats` counts them). Give it a larger buffer=, fewer events (min_seconds=, sample=, "
                "coalesce=), or overflow='block' to let the publisher wait.",
                self.name,
                self._limit,
            )
        self.drops += 1


class TaskBuffer(Buffer):
    """A buffer that tasks of the publisher's own loop empty."""

    __slots__ = ("_arrived", "_items", "_taken_in_a_row")

    def __init__(self, name: str, limit: int) -> None:
        super().__init__(name, limit)
        self._items: deque[Item] = deque()
        self._arrived: anyio.Event | None = None
        self._taken_in_a_row = 0

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: Item) -> Item | None:
        """Add `item`; the oldest one is dropped, and counted, when there is no room; return the dropped one."""
        if self._ended:
            self.drops += 1
            return item
        dropped = None
        if len(self._items) >= self._limit:
            dropped = self._items.popleft()
            self._count_drop()
        self._items.append(item)
        self.until_turn -= 1
        if self._arrived is not None:
            self._arrived = _wake(self._arrived)
        return dropped

    def end(self) -> None:
        """Let `take` return None once everything put so far is taken; refuse, and count, what still comes."""
        self._ended = True
        self._arrived = _wake(self._arrived)
        self._make_room()

    async def take(self) -> Item | None:
        """Take the oldest item, waiting for one if need be; None when the buffer has ended.

        Any number of tasks may wait at once: an arrival wakes them all, and those that find nothing wait again.
        """
        self._taken_in_a_row += 1
        if self._taken_in_a_row >= TAKES_IN_A_ROW:
            self._taken_in_a_row = 0
            await checkpoint()
        while not self._items:
            if self._ended:
                return None
            if self._arrived is None:
                self._arrived = anyio.Event()
            self._taken_in_a_row = 0
            await self._arrived.wait()
        item = self._items.popleft()
        self.until_turn = self._half
        self._make_room()
        return item


class ThreadBuffer(Buffer):
    """A buffer that a thread empties; only `take` may be called in that thread."""

    __slots__ = ("_items", "_soon")

    def __init__(self, name: str, limit: int) -> None:
        super().__init__(name, limit)
        self._items: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._soon: Callable[[Callable[[], object]], object] | None = None

    def __len__(self) -> int:
        return self._items.qsize()

    def put(self, item: Item) -> Item | None:
        """Add `item`; the oldest one is dropped, and counted, when there is no room; return the dropped one."""
        if self._ended:
            self.drops += 1
            return item
        dropped = None
        if self._items.qsize() >= self._limit:
            with contextlib.suppress(queue.Empty):
                dropped = self._items.get_nowait()
                self._count_drop()
        self._items.put(item)
        self.until_turn -= 1
        return dropped

    async def room(self) -> None:
        """Wait until the buffer is not full, or has ended."""
        self._soon = call_soon_here()
        await super().room()

    def end(self) -> None:
        """Let `take` return None once everything put so far is taken; refuse, and count, what still comes."""
        if not self._ended:
            self._ended = True
            self._items.put(None)
            self._make_room()

    def take(self) -> Item | None:
        """Take the oldest item, blocking until there is one; None when the buffer has ended."""
        item = self._items.get()
        if self._room is not None and self._soon is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and with it the publisher that waited
                self._soon(self._make_room)
        return item


def _wake(event: anyio.Event | None) -> anyio.Event | None:
    """Set `event`, if there is one; return None, to be stored in its place: later waiters make an event of their own."""
    if event is not None:
        with contextlib.suppress(RuntimeError):  # the loop of the task that waits has ended, and with it the task
            event.set()
    return None


def check_buffer(limit: object, overflow: object) -> None:
    """Raise OptionError unless these can be the size of a buffer, and what happens when it is full.

    Raises:
        OptionError: One of them cannot.
    """
    count("buffer", limit, at_least=1)
    one_of("overflow", overflow, get_args(Overflow))
