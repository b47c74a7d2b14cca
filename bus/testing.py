"""A bus that records everything, for tests: `RecordingBus`, and in pytest the fixture ``recording_bus``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from phasebus.bus._bus import Bus
from phasebus.bus._context import Change, Context
from phasebus.bus._functions import name_of
from phasebus.bus._outcome import Outcome
from phasebus.bus._selectors import is_selector, selector
from phasebus.bus._view import View


class RecordingBus(Bus):
    """A bus that records what was published on it, and the outcomes.

    Attributes:
        events: Every event, in the order the publishes began.
        outcomes: The outcome of every publish that has returned, in that order.
        contexts: Every context that was published with, or made.
    """

    def __init__(self, name: str = "recording", **options: Any) -> None:
        super().__init__(name, **options)
        self.events: list[object] = []
        self.outcomes: list[Outcome] = []
        self.contexts: list[Context] = []

    async def publish(self, event: object, context: Context | View | None = None) -> Outcome:
        """Publish and record; see `Bus.publish`."""
        context = Context() if context is None else context
        if not any(context.root is known for known in self.contexts):
            self.contexts.append(context.root)
        self.events.append(event)
        outcome = await super().publish(event, context)
        self.outcomes.append(outcome)
        return outcome

    def assert_order(self, *expected: Any) -> None:
        """Assert that these were published in this order, with anything else in between.

        Args:
            expected: Events themselves, or what selects them: classes, unions, protocols, names of phases.
        """
        left = list(expected)
        for event in self.events:
            if left and _is(event, left[0]):
                left.pop(0)
        if left:
            published = ", ".join(map(_shown, self.events)) or "nothing"
            raise AssertionError(f"{_shown(left[0])} was not published, or too early; what was: {published}")

    def assert_ran(self, *expected: str | Callable[..., Any]) -> None:
        """Assert that these subscribers, and no others, were called in the last publish, in this order.

        Args:
            expected: Their names, or the callbacks.
        """
        wanted = [name if isinstance(name, str) else name_of(name) for name in expected]
        ran = [result.name for result in self.outcomes[-1]] if self.outcomes else []
        if ran != wanted:
            raise AssertionError(f"{ran} ran, not {wanted}")

    def changes(self, key: str) -> tuple[Change, ...]:
        """Return every committed change of `key`, in all contexts that were published with."""
        return tuple(change for context in self.contexts for change in context.history(key))

    def wrote(self, key: str, *, by: str | Callable[..., Any] | None = None) -> bool:
        """Return whether `key` was written, by the subscriber `by` if one is given."""
        author = by if by is None or isinstance(by, str) else name_of(by)
        return any(author in (None, change.by) for change in self.changes(key))


def _is(event: object, expected: Any) -> bool:
    if event is expected or (is_selector(expected) and selector(expected).matches(type(event))):
        return True
    try:
        return bool(event == expected)
    except Exception:  # noqa: BLE001  # an event that has an array, say, cannot be compared
        return False


def _shown(thing: object) -> str:
    return thing.__name__ if isinstance(thing, type) else repr(thing)
