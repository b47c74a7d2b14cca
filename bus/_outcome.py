"""What a publish comes back with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
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
    """

    __slots__ = ("_errors", "_subscriptions", "_ticks", "_values", "parent")

    def __init__(
        self,
        subscriptions: tuple[Subscription, ...],
        values: Mapping[int, Any],
        errors: Mapping[int, Exception],
        ticks: list[float] | None,
        parent: object,
    ) -> None:
        self._subscriptions = subscriptions
        self._values = values
        self._errors = errors
        self._ticks = ticks
        self.parent = parent

    @property
    def results(self) -> tuple[Result, ...]:
        """What became of each subscriber."""
        seconds: list[float | None] = [None] * len(self._subscriptions)
        if self._ticks is not None:
            seconds = [end - start for start, end in pairwise(self._ticks)]
        return tuple(
            Result(subscription.name, self._values.get(index), self._errors.get(index), seconds[index])
            for index, subscription in enumerate(self._subscriptions)
        )

    @property
    def errors(self) -> tuple[Exception, ...]:
        """The errors that were isolated, in the order they came."""
        return tuple(self._errors.values())

    def raise_errors(self) -> None:
        """Raise what was isolated: nothing, the one error, or all of them as an ExceptionGroup."""
        raise_together(self.errors)

    def __iter__(self) -> Iterator[Result]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self._subscriptions)

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
