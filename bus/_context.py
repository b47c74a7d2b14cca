"""The context: a mapping that the system and all callbacks share, and that remembers who changed what."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar, overload

from phasebus.bus._keys import Key

T = TypeVar("T")
D = TypeVar("D")


class _Deleted:
    """The value of a key that was removed."""

    def __repr__(self) -> str:
        return "<deleted>"


DELETED: Final = _Deleted()

Author = tuple[str, object]
"""Who wrote, and during which event."""


@dataclass(frozen=True, slots=True)
class Change:
    """One committed change of one key.

    Attributes:
        key: The key that was changed.
        value: Its value from then on; None when `deleted`.
        by: The name of the callback that changed it, or the author of the context.
        event: The event during which that happened, or None outside any.
        time: When it was committed, in seconds since the epoch.
        deleted: Whether the key was removed.
    """

    key: str
    value: Any
    by: str
    event: object
    time: float
    deleted: bool = False


class ReadableContext(Mapping[str, Any]):
    """What every sort of context can do: be read, with `Key` constants giving the values their types."""

    __slots__ = ()

    @overload
    def __getitem__(self, key: Key[T]) -> T: ...
    @overload
    def __getitem__(self, key: str) -> Any: ...
    def __getitem__(self, key: str) -> Any:
        raise NotImplementedError

    @overload  # type: ignore[override]
    def get(self, key: Key[T]) -> T | None: ...
    @overload
    def get(self, key: Key[T], default: D) -> T | D: ...
    @overload
    def get(self, key: str, default: Any = None) -> Any: ...
    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of `key`, or `default` where there is none."""
        try:
            return self[key]
        except KeyError:
            return default

    def history(self, key: str) -> tuple[Change, ...]:
        """Return every committed change of `key`, oldest first."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict(self)!r})"


class Context(ReadableContext, MutableMapping[str, Any]):
    """A context as its owner holds it: the owner's writes count at once.

    What is remembered is assignment: changing a value in place, say appending to a list, is seen by all and recorded
    by nobody.

    Args:
        data: What it holds at first.
        author: The name under which the owner's own writes are remembered.
        keys: Keys whose rules are to hold also where they are written by their plain names.
    """

    __slots__ = ("_author", "_commits", "_data", "_history", "_rules")

    def __init__(
        self, data: Mapping[str, Any] | None = None, *, author: str = "phasebus", keys: Iterable[Key[Any]] = ()
    ) -> None:
        self._data: dict[str, Any] = {}
        self._history: dict[str, list[tuple[Any, str, object, float, int]]] = {}
        self._rules: dict[str, Key[Any]] = {key: key for key in keys if key.has_rule}
        self._commits = 0
        self._author = author
        self.update(data or {})

    def __getitem__(self, key: str) -> Any:
        return self._data[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.learn(key)
        rule = self._rules.get(key)
        self.apply({key: value if rule is None else rule.checked(value, self._author)}, (self._author, None), {})

    def __delitem__(self, key: str) -> None:
        if key not in self._data:
            raise KeyError(key)
        self.apply({key: DELETED}, (self._author, None), {})

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def history(self, key: str) -> tuple[Change, ...]:
        """Return every committed change of `key`, oldest first."""
        return tuple(
            Change(key, None if value is DELETED else value, by, event, when, value is DELETED)
            for value, by, event, when, _ in self._history.get(key, ())
        )

    # What follows is for the views of this context; see `phasebus.bus._view`.

    @property
    def root(self) -> Context:
        """The context itself: where the rules and the history are."""
        return self

    @property
    def rules(self) -> Mapping[str, Key[Any]]:
        """The keys that have rules, by their names."""
        return self._rules

    @property
    def commits(self) -> int:
        """How many commits there have been."""
        return self._commits

    def learn(self, key: str) -> None:
        """Remember the rules of `key`, if it brings any."""
        if isinstance(key, Key) and key.has_rule:
            self._rules.setdefault(key, key)

    def apply(self, writes: Mapping[str, Any], author: Author, authors: Mapping[str, Author]) -> None:
        """Commit `writes` as one; they are `author`'s but for those that `authors` gives to somebody else."""
        now = time.time()
        self._commits = number = self._commits + 1
        for key, value in writes.items():
            if value is DELETED:
                self._data.pop(key, None)
            else:
                self._data[key] = value
            by, event = authors.get(key, author) if authors else author
            record = (value, by, event, now, number)
            try:
                self._history[key].append(record)
            except KeyError:
                self._history[key] = [record]

    def last_change(self, key: str) -> tuple[str, object, int] | None:
        """Return who changed `key` last, during which event, and in which commit; None if nobody has."""
        if key not in self._history:
            return None
        _, by, event, _, number = self._history[key][-1]
        return by, event, number
