"""Views: the context as one callback, or an observer, sees it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from enum import Enum
from typing import Any, ParamSpec, Self, TypeVar, overload

from phasebus.bus._context import DELETED, Change, Context, ReadableContext
from phasebus.bus._errors import ConflictError, ContextClosedError
from phasebus.bus._keys import Key, PlainName, check_key

T = TypeVar("T")
R = TypeVar("R")
K = TypeVar("K")
P = ParamSpec("P")

Author = tuple[str, object]
"""Who wrote, and during which event."""


class ReadOnlyContext(ReadableContext):
    """A context as observers see it: live, and not to be changed."""

    __slots__ = ("_context",)

    def __init__(self, context: Context | View) -> None:
        self._context = context

    def _value(self, key: str) -> Any:
        return self._context[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._context)

    def __len__(self) -> int:
        return len(self._context)

    def history(self, key: str) -> tuple[Change, ...]:
        """Return the committed changes of `key`; see `Context.history`."""
        return self._context.history(key)


class Writes(dict[str, Any]):
    """The writes of a view, when they are more than one plain key and its value.

    Attributes:
        authors: The authors of the writes that were committed by a view of this view.
        since: How many commits there had been when the first was written.
    """

    __slots__ = ("authors", "since")

    def __init__(self, since: int) -> None:
        super().__init__()
        self.authors: dict[str, Author] = {}
        self.since = since


class Mark(Enum):
    """What a view's `key` can be besides a key."""

    MANY = "more than one plain write"
    COMMITTED = "the callback has succeeded"
    FAILED = "the callback has failed"


class View(ReadableContext, MutableMapping[str, Any]):
    """A context as one callback sees it during one event: a transaction.

    The callback sees its writes at once, everything else sees them when the callback has succeeded. What its background
    tasks write later is committed at once; after a failure it is refused.

    Most callbacks write one key or none. So a view is cheap to make and to commit as long as there are no more.

    Attributes:
        base: What it is a view of.
        by: The name of the callback.
        event: The event it is called for.
        key: None until something is written; then the key, or a `Mark`.
        value: What was written to `key`; all `Writes` if that is `Mark.MANY`.
    """

    # No __init__: one view is made for every call, and filling the slots in place takes half the time.
    __slots__ = ("base", "by", "event", "key", "value")

    base: Context | View
    by: str
    event: object
    key: str | Mark | None
    value: Any

    def _value(self, key: str) -> Any:
        if self.key is None:
            return self.base[key]
        writes = self.written()
        if key in writes:
            if (value := writes[key]) is DELETED:
                raise KeyError(key)
            return value
        return self.base[key]

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
        if key.__class__ is not str:
            check_key(key)
            if key.__class__ is Key and key.has_rule:
                self.root.learn(key)
        if self.key is None and not self.base.rules:
            self.key = key
            self.value = value
        else:
            self._write(key, value)

    def __ior__(self, other: Mapping[str, Any]) -> Self:  # type: ignore[override]  # unlike `|`, as with a dict
        self.update(other)
        return self

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        self._write(key, DELETED)

    def __iter__(self) -> Iterator[str]:
        writes = self.written()
        keys = [key for key in self.base if writes.get(key) is not DELETED]
        keys += [key for key, value in writes.items() if value is not DELETED and key not in self.base]
        return iter(keys)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def history(self, key: str) -> tuple[Change, ...]:
        """Return the committed changes of `key`, this callback's own not yet among them; see `Context.history`."""
        return self.base.history(key)

    @property
    def root(self) -> Context:
        """The context at the bottom of all views."""
        return self.base.root

    @property
    def rules(self) -> dict[str, Key[Any]]:
        """The keys that have rules, by their names."""
        return self.root.rules

    def __contains__(self, key: object) -> bool:
        written = self.written()
        return written[key] is not DELETED if key in written else key in self.base  # type: ignore[index]

    def written(self) -> Mapping[str, Any]:
        """Return what was written and is not yet committed."""
        if isinstance(self.key, str):
            return {self.key: self.value}
        return self.value if self.key is Mark.MANY else {}

    def commit(self) -> None:
        """Write all to the context that this is a view of, or nothing.

        Raises:
            ConflictError: Another callback wrote a key that allows only one writer an event.
            InvalidValueError: A key refuses its value.
        """
        if isinstance(self.key, str) and not self.rules:
            self.base.apply(self.key, self.value, self.by, self.event)
        elif self.key is not None:
            self._commit_by_rules()
        self.key = Mark.COMMITTED

    def _commit_by_rules(self) -> None:
        if self.key is Mark.MANY:
            writes: Writes = self.value
        else:
            writes = Writes(-1)  # rules, if any, were added after the write: every write since then conflicts
            writes.update(self.written())
        rules = self.rules
        checked = [
            (key, self._checked(rules[key], value, writes.since) if key in rules else value)
            for key, value in writes.items()
        ]
        for key, value in checked:
            self.base.apply(key, value, *writes.authors.get(key, (self.by, self.event)))

    def discard(self) -> None:
        """Forget the writes; the callback may begin again."""
        self.key = None

    def close(self) -> None:
        """Forget the writes, and refuse all that may follow: the callback has failed."""
        self.key = Mark.FAILED

    def apply(self, key: str, value: Any, by: str, event: object) -> None:
        """Accept a write of a view of this view: it is committed or discarded with this one."""
        if self.key is Mark.COMMITTED:
            self.base.apply(key, value, by, event)
        else:
            self._write(key, value)
            self.value.authors[key] = (by, event)

    def last_change(self, key: str) -> tuple[str, object, int] | None:
        """Return who changed `key` last, during which event, and in which commit; None without a change."""
        if key not in self.written():
            return self.base.last_change(key)
        writes = self._many()
        return *writes.authors.get(key, (self.by, self.event)), writes.since

    def _many(self) -> Writes:
        """Return all writes, in the form for more than one."""
        if self.key is not Mark.MANY:
            writes = Writes(self.root.commits)
            writes.update(self.written())
            self.key, self.value = Mark.MANY, writes
        many: Writes = self.value
        return many

    def _write(self, key: str, value: Any) -> None:
        if self.key is Mark.FAILED:
            raise ContextClosedError(
                f"{self.by!r} failed during {type(self.event).__name__}, and still writes to its context: "
                "what a failed callback leaves running must not change anything; end it with the callback"
            )
        late = self.key is Mark.COMMITTED
        writes = self._many()
        writes[key] = value
        writes.authors.pop(key, None)
        if late:
            try:
                self.commit()
            finally:
                self.key = Mark.COMMITTED

    def _checked(self, key: Key[Any], value: Any, since: int) -> Any:
        """Return the value to store when this view writes `value` to `key`, by the key's rules."""
        if value is not DELETED:
            value = key.checked(value, self.by)
        last = self.base.last_change(key)
        if key.on_conflict == "last" or last is None:
            return value
        by, event, number = last
        if by == self.by or (event is not self.event and number <= since):
            return value
        if key.on_conflict == "error":
            raise ConflictError(
                f"{by!r} and {self.by!r} both wrote {key!s} during {type(self.event).__name__}; "
                "let one of them decide, or give the key a rule that merges (Key(on_conflict=…))"
            )
        if value is DELETED or key not in self.base:
            return value
        return key.on_conflict(self.base[key], value)


Context.register(
    View
)  # a view is what a callback gets that asks for a `Context`; inheriting its slots would make it slower


def view_of(context: Context | View, by: str, event: object) -> View:
    """Return a view of `context`, for the callback `by` during `event`."""
    view = View()
    view.base, view.by, view.event, view.key = context, by, event, None
    return view


references = sys.getrefcount


def _references_of_a_local() -> int:
    """Return how many `references` there are to an object that one local variable holds: this depends on the Python."""
    alone = object()
    return references(alone)


ALONE = _references_of_a_local()
"""How many `references` a view has that only one local variable holds."""
