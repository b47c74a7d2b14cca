"""Which event is being handled where: what makes a publish a nested one.

A `ContextVar` that is set and reset around every publish would cost more than the whole rest of a small publish. So each
task keeps one `Trail` that its top-level publishes write on, and only what has to be exact in copies of the context
(publishes that are observed, or nested) sets a trail of its own.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from threading import Thread
from typing import Any

from phasebus.bus._loops import RunningTasks, running_tasks


@dataclass(frozen=True, slots=True)
class Nested:
    """An event that was published while another one was being handled."""

    event: object
    parent: Any

    @property
    def depth(self) -> int:
        """How many publishes it lies inside of."""
        return 1 + (self.parent.depth if isinstance(self.parent, Nested) else 0)

    def chain(self) -> str:
        """Return the classes of the events that led here, first cause first."""
        before = self.parent.chain() if isinstance(self.parent, Nested) else type(self.parent).__name__
        return f"{before} > {type(self.event).__name__}"


class Trail:
    """Where the publishes of one task say what they are handling.

    Attributes:
        top: The event that is being handled, or a `Nested` where its publish was caused by another; None if there is
            none.
        task: The `id` of the task whose trail it is; None for one that belongs to a single publish, and is inherited as it
            stands. The task itself would be held in a circle: it holds its context, and that holds its trail. A later
            task of the same id, if it inherits the trail at all, may as well go on with it: its owner has ended.
        tasks: Tells which task is running, under the key `loop`; at a fraction of what `anyio.get_current_task` costs.
        loop: The event loop of that task.
        thread: The thread of that task.
    """

    __slots__ = ("loop", "task", "tasks", "thread", "top")

    def __init__(self, top: object, tasks: RunningTasks, loop: Any, thread: Thread | None) -> None:
        self.top = top
        self.tasks = tasks
        self.loop = loop
        self.task = id(tasks[loop]) if thread else None
        self.thread = thread


trail: ContextVar[Trail] = ContextVar("phasebus_trail")


def own_trail(inherited: Trail, here: Thread) -> Trail:
    """Return the trail that a publish here begins with: the inherited one if that leads to an event, else a new one.

    A task that inherits the trail of the one that started it is, by that, taken for a part of what that one handles
    when it publishes. A task that has once published by itself has a trail of its own.
    """
    if inherited.top is not None:
        return inherited
    try:
        own = Trail(None, *running_tasks(), here)
    except (LookupError, RuntimeError):  # no task, perhaps no event loop: somebody drives the coroutine by hand
        own = passing_trail(None)
    trail.set(own)
    return own


def passing_trail(top: object) -> Trail:
    """Return a trail for one publish: what inherits it will always be led to `top`."""
    return Trail(top, {}, None, None)


NOBODYS = passing_trail(None)
"""What stands for the trail where nothing has been published yet."""


def event_of(top: object) -> Any:
    """Return the event that the top of a trail stands for."""
    return top.event if isinstance(top, Nested) else top


def current_event() -> Any:
    """Return the event that is being handled in this context, or None."""
    here = trail.get(None)
    return None if here is None else event_of(here.top)
