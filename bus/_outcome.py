"""What a publish comes back with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise, repeat
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phasebus.bus._subscription import Subscription


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one subscriber.

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
        values: What those returned that returned something; None if nobody did.
        caught: The errors that were isolated; None if there were none.
        ticks: When the first call began and each ended, in seconds; None unless the bus was made with ``timing=True``.
    """

    # No __init__, as in `View`: an outcome is made for every publish that is timed.
    __slots__ = ("caught", "parent", "subscriptions", "ticks", "values")

    subscriptions: tuple[Subscription, ...]
    values: Mapping[Subscription, Any] | None
    caught: Mapping[Subscription, Exception] | None
    ticks: list[float] | None
    parent: object

    @property
    def results(self) -> tuple[Result, ...]:
        """What became of each subscriber."""
        values, caught = self.values or {}, self.caught or {}
        seconds: Iterable[float | None] = repeat(None)
        if self.ticks is not None:
            seconds = (end - start for start, end in pairwise(self.ticks))
        return tuple(
            Result(subscription.name, values.get(subscription), caught.get(subscription), took)
            for subscription, took in zip(self.subscriptions, seconds, strict=False)
        )

    @property
    def errors(self) -> tuple[Exception, ...]:
        """The errors that were isolated, in the order they came."""
        return tuple((self.caught or {}).values())

    def raise_errors(self) -> None:
        """Raise what was isolated: nothing, the one error, or all of them as an ExceptionGroup."""
        raise_together(self.errors)

    def __iter__(self) -> Iterator[Result]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.subscriptions)

    def __getitem__(self, name: str) -> Result:
        for result in self.results:
            if result.name == name:
                return result
        raise KeyError(name)

    def __repr__(self) -> str:
        return f"Outcome({', '.join(map(repr, self.results))})"


def raise_together(errors: tuple[Exception, ...]) -> None:
    """Raise `errors`: nothing if there are none, the error itself if it is one, else an ExceptionGroup."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ExceptionGroup(f"{len(errors)} callbacks failed", errors)
