"""What a publish returns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, repeat
from typing import Any, overload

from phasebus.bus._subscription import Subscription


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one subscriber.

    Attributes:
        name: The subscriber's name.
        value: What it returned; None if it failed.
        error: The error it was isolated with, or None.
        seconds: How long it took; None unless the bus was made with ``timing=True``.
    """

    name: str
    value: Any = None
    error: Exception | None = None
    seconds: float | None = None


class Outcome:
    """The results of one publish, in the order the subscribers ran: a sequence of `Result`, found by name as well.

    Attributes:
        parent: The event during whose handling this one was published, or None.
        subscriptions: The subscribers, in the order they ran.
        returned: What was returned other than None, by subscriber; None if nothing was.
        caught: The errors that were isolated; None if there were none.
        ticks: When the first call began and each ended, in seconds; None unless the bus was made with ``timing=True``.
    """

    # No __init__, as in `View`: an outcome is made for every publish with values.
    __slots__ = ("caught", "parent", "returned", "subscriptions", "ticks")

    subscriptions: tuple[Subscription, ...]
    returned: Mapping[Subscription, Any] | None
    caught: Mapping[Subscription, Exception] | None
    ticks: Sequence[float] | None
    parent: object

    @property
    def values(self) -> Mapping[Subscription, Any]:
        """What the subscribers returned, other than None."""
        return self.returned or {}

    @property
    def results(self) -> tuple[Result, ...]:
        """The result of each subscriber, in the order they ran."""
        values, caught = self.values, self.caught or {}
        seconds: Iterable[float | None] = repeat(None)
        if self.ticks is not None:
            seconds = (end - start for start, end in pairwise(self.ticks))
        return tuple(
            Result(subscription.name, values.get(subscription), caught.get(subscription), took)
            for subscription, took in zip(self.subscriptions, seconds, strict=False)
        )

    @property
    def errors(self) -> tuple[Exception, ...]:
        """The errors that were isolated, in the order they were raised."""
        return tuple((self.caught or {}).values())

    def raise_errors(self) -> None:
        """Raise what was isolated: nothing, the one error, or all of them as an ExceptionGroup."""
        raise_together(self.errors)

    def __iter__(self) -> Iterator[Result]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.subscriptions)

    @overload
    def __getitem__(self, key: str | int) -> Result: ...
    @overload
    def __getitem__(self, key: slice) -> tuple[Result, ...]: ...
    def __getitem__(self, key: str | int | slice) -> Result | tuple[Result, ...]:
        if not isinstance(key, str):
            return self.results[key]
        for result in self.results:
            if result.name == key:
                return result
        raise KeyError(key)

    def __repr__(self) -> str:
        return f"Outcome({', '.join(map(repr, self.results))})"


def raise_together(errors: tuple[Exception, ...]) -> None:
    """Raise `errors`: nothing if there are none, the error itself if it is one, else an ExceptionGroup."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ExceptionGroup(f"{len(errors)} callbacks failed", errors)
