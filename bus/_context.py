"""The context: a mapping that the system and all callbacks share, with a record of who changed what."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from copy import deepcopy
from dataclasses import dataclass
from time import time
from typing import Any, Final, ParamSpec, Self, TypeVar, overload

from phasebus.bus._checks import count
from phasebus.bus._keys import Key, PlainName, check_key

T = TypeVar("T")
R = TypeVar("R")
K = TypeVar("K")
P = ParamSpec("P")
D = TypeVar("D")


class _Deleted:
    """The value of a key that was removed."""

    def __repr__(self) -> str:
        return "<deleted>"


DELETED: Final = _Deleted()

HISTORY = 10_000
"""How many changes a context keeps by default, besides the first of each key."""

Logged = tuple[str, Any, str, object, float]
"""The fields of a `Change`, with `DELETED` as the value of a key that was removed."""


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
    """The reading side of every sort of context: `Key` constants give the values their types."""

    __slots__ = ()

    @overload
    def __getitem__(self, key: Key[T]) -> T: ...
    @overload
    def __getitem__(self, key: str) -> Any: ...
    def __getitem__(self, key: str) -> Any:
        return self._value(key)

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
        """Return the committed changes of `key`, oldest first: the first one ever, and all that the history still holds."""
        raise NotImplementedError

    def _value(self, key: str) -> Any:
        raise NotImplementedError

    def copy(self) -> dict[str, Any]:
        """Return the values as they are now, as a dict of its own."""
        return dict(self)

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return {**self, **other} if isinstance(other, Mapping) else NotImplemented

    def __ror__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return {**other, **self} if isinstance(other, Mapping) else NotImplemented

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as a `Context` of these values: the rules are code, and the history has events, and both stay in their process."""
        return Context, (dict(self),)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict(self)!r})"


class Context(ReadableContext, MutableMapping[str, Any]):
    """A context as its owner holds it: the owner's writes count at once.

    What is recorded is assignment: changing a value in place, say appending to a list, is seen by all and recorded nowhere.

    Args:
        data: What it holds at first.
        author: The name under which the owner's own writes are recorded.
        keys: Keys whose rules are to hold also where they are written by their plain names.
        history: How many of the latest changes are kept, at least 1. The first change of each key is kept besides.

    Attributes:
        data: What it holds. This and the following are for the bus: a write to them is in no history.
        log: The latest changes, in order.
        first: The first change of each key that has one older than the `log`.
        forgotten: How many changes are older than the `log`.
        longest: How long the `log` may get; it is then cut to half of that.
        rules: The keys that have rules, by their names.

    Raises:
        OptionError: `history` is not a positive number.
    """

    __slots__ = ("_author", "data", "first", "forgotten", "log", "longest", "rules")

    def __init__(
        self,
        data: Mapping[str, Any] | None = None,
        *,
        author: str = "phasebus",
        keys: Iterable[Key[Any]] = (),
        history: int = HISTORY,
    ) -> None:
        self.data: dict[str, Any] = {}
        self.log: list[Logged] = []
        self.first: dict[str, Logged] = {}
        self.forgotten = 0
        if history is not HISTORY:
            count("history", history, at_least=1)
        self.longest = 2 * history
        self._author = author
        self.rules: dict[str, Key[Any]] = {key: key for key in keys if key.has_rule} if keys else {}
        if data:
            self.update(data)

    @classmethod
    def over(cls, data: dict[str, Any]) -> Context:
        """Return a context whose storage is `data` itself: what is committed is in there at once."""
        context = cls(data)
        context.data = data
        return context

    def __copy__(self) -> Context:
        """Return a context of its own with the same values, rules and history."""
        other = Context(author=self._author)
        other.data, other.log, other.first = dict(self.data), list(self.log), dict(self.first)
        other.forgotten, other.longest, other.rules = self.forgotten, self.longest, dict(self.rules)
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> Context:
        """Return a context of its own with copies of the values, and the same rules and history."""
        other = self.__copy__()
        other.data = deepcopy(self.data, memo)
        return other

    def _value(self, key: str) -> Any:
        return self.data[key]

    # Type checkers infer the type of a value before they know that of the key, so that of `[{"CPU": 1}]` has integers.
    @overload
    def __setitem__(self, key: Key[list[T]], value: list[Any]) -> None: ...
    @overload
    def __setitem__(self, key: Key[dict[K, T]], value: dict[Any, Any]) -> None: ...
    @overload
    def __setitem__(self, key: Key[Callable[P, R]], value: Callable[..., Any]) -> None: ...
    @overload
    def __setitem__(self, key: Key[T], value: T) -> None: ...
    @overload
    def __setitem__(self, key: PlainName, value: Any) -> None: ...
    def __setitem__(self, key: Any, value: Any) -> None:
        check_key(key)
        self.learn(key)
        rule = self.rules.get(key)
        self.apply(key, value if rule is None else rule.checked(value, self._author), self._author, None)

    def __ior__(self, other: Mapping[str, Any]) -> Self:  # type: ignore[override]  # unlike `|`, as with a dict
        self.update(other)
        return self

    def __delitem__(self, key: str) -> None:
        if key not in self.data:
            raise KeyError(key)
        self.apply(key, DELETED, self._author, None)

    def __contains__(self, key: object) -> bool:
        return key in self.data

    def __iter__(self) -> Iterator[str]:
        return iter(list(self.data))  # a copy: others may write while it is read, observers do so in threads

    def __len__(self) -> int:
        return len(self.data)

    def history(self, key: str) -> tuple[Change, ...]:
        """Return the committed changes of `key`, oldest first: the first one ever, and all that the history still holds."""
        first = self.first.get(key)
        changes = [each for each in list(self.log) if each[0] == key]
        return tuple(
            Change(key, None if value is DELETED else value, by, event, when, value is DELETED)
            for _, value, by, event, when in (changes if first is None else [first, *changes])
        )

    @property
    def changed(self) -> tuple[str, ...]:
        """The keys that have ever been written, in that order."""
        return tuple(dict.fromkeys([*self.first, *(change[0] for change in list(self.log))]))

    # What follows is for the views of this context; see `phasebus.bus._view`.

    @property
    def root(self) -> Context:
        """The context itself: where the rules and the history are."""
        return self

    @property
    def commits(self) -> int:
        """How many changes there have been."""
        return self.forgotten + len(self.log)

    def learn(self, key: str) -> None:
        """Add the rules of `key` to the context's, if it has any."""
        if isinstance(key, Key) and key.has_rule:
            self.rules.setdefault(key, key)

    def apply(self, key: str, value: Any, by: str, event: object) -> None:
        """Commit one write, or with `DELETED` a deletion."""
        if value is DELETED:
            self.data.pop(key, None)
        else:
            self.data[key] = value
        self.log.append((key, value, by, event, time()))
        if len(self.log) >= self.longest:
            self.forget()

    def forget(self) -> None:
        """Drop the older half of the log, except for the first change of each key."""
        older = self.longest // 2
        for change in self.log[:older]:
            self.first.setdefault(change[0], change)
        del self.log[:older]
        self.forgotten += older

    def last_change(self, key: str) -> tuple[str, object, int] | None:
        """Return who changed `key` last, during which event, and which change that was; None if there is none."""
        for number in range(len(self.log), 0, -1):
            name, _, by, event, _ = self.log[number - 1]
            if name == key:
                return by, event, self.forgotten + number
        if (first := self.first.get(key)) is not None:
            return first[2], first[3], 0
        return None
