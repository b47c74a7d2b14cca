"""What was published on a bus: the latest events, and the starts of the steps that are running."""

from __future__ import annotations

from collections import deque
from typing import Any

from phasebus.bus._checks import count
from phasebus.bus._selectors import Selector

RUNNING_STEPS = 10_000
"""How many steps are kept as running; one whose end was never published is forgotten when there are more."""


class Past:
    """The latest events, and the starts of the steps that are running.

    Args:
        history: How many of the latest events are kept.
    """

    __slots__ = ("_history", "_running")

    def __init__(self, history: int) -> None:
        self._history: deque[object] | None = deque(maxlen=history) if history else None
        self._running: dict[str, object] = {}

    def add(self, event: Any, *, starts_step: bool, ends_step: bool) -> None:
        """Add an `event` that is being published."""
        if self._history is not None:
            self._history.append(event)
        if starts_step:
            self._running[event.step] = event
            if len(self._running) > RUNNING_STEPS:
                del self._running[next(iter(self._running))]
        elif ends_step:
            self._running.pop(event.step, None)

    def select(self, chosen: Selector, replay: int | bool, *, present: bool) -> list[Any]:
        """Return the starts of running steps if `present`, then the latest `replay` events, as far as they are `chosen`.

        Raises:
            OptionError: `replay` is no number of events, nor True for all.
        """
        if not isinstance(replay, bool):
            count("replay", replay, at_least=0)
        running = [event for event in self._running.values() if present and chosen.matches(type(event))]
        known = {id(event) for event in running}
        past = [e for e in self._history or () if replay and chosen.matches(type(e)) and id(e) not in known]
        return [*running, *(past if replay is True else past[len(past) - min(replay, len(past)) :])]
