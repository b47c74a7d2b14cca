"""Views: the context as one callback, or an observer, sees it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, Literal

from phasebus.bus._context import DELETED, Author, Change, Context, ReadableContext
from phasebus.bus._errors import ConflictError, ContextClosedError
from phasebus.bus._keys import Key


class ReadOnlyContext(ReadableContext):
    """A context as observers see it: live, and not to be changed."""

    __slots__ = ("_context",)

    def __init__(self, context: Context | View) -> None:
        self._context = context

    def __getitem__(self, key: str) -> Any:
        return self._context[key]

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._context))

    def __len__(self) -> int:
        return len(self._context)

    def history(self, key: str) -> tuple[Change, ...]:
        """Return every committed change of `key`, oldest first."""
        return self._context.history(key)


class View(ReadableContext, MutableMapping[str, Any]):
    """A context as one callback sees it during one event: a transaction.

    What the callback writes is seen by itself at once and by everybody else when it has succeeded. What its own
    background tasks write later is committed at once; after a failure it is refused.

    Attributes:
        state: Where the transaction stands.
        writes: What was written and is not yet committed; None if nothing.
    """

    __slots__ = ("_authors", "_base", "_by", "_event", "_since", "state", "writes")

    def __init__(self, base: Context | View, by: str, event: object) -> None:
        self._base = base
        self._by = by
        self._event = event
        self.state: Literal["open", "committed", "failed"] = "open"
        self.writes: dict[str, Any] | None = None

    def __getitem__(self, key: str) -> Any:
        writes = self.writes
        if writes is not None and key in writes:
            if (value := writes[key]) is DELETED:
                raise KeyError(key)
            return value
        return self._base[key]

    def __setitem__(self, key: str, value: Any) -> None:
        writes = self.writes
        if writes is None:
            writes = self._begin()
        if self._authors:
            self._authors.pop(key, None)
        writes[key] = value
        if key.__class__ is Key:
            self._base.root.learn(key)
        if self.state == "committed":
            self.commit()

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        self[key] = DELETED

    def __iter__(self) -> Iterator[str]:
        writes = self.writes or {}
        yield from (key for key in self._base if key not in writes)
        yield from (key for key, value in writes.items() if value is not DELETED)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def history(self, key: str) -> tuple[Change, ...]:
        """Return every committed change of `key`, oldest first; this callback's own are not yet among them."""
        return self._base.history(key)

    @property
    def root(self) -> Context:
        """The context that this is, in the end, a view of."""
        return self._base.root

    def commit(self) -> None:
        """Hand the writes, all or none, to the context this is a view of.

        Raises:
            ConflictError: Another callback wrote a key that allows only one writer an event.
            InvalidValueError: A key refuses its value.
        """
        writes, self.writes = self.writes, None
        if writes:
            if rules := self._base.root.rules:
                writes = {
                    key: self._settled(rules[key], value) if key in rules else value for key, value in writes.items()
                }
            self._base.apply(writes, (self._by, self._event), self._authors)
        self.state = "committed"

    def discard(self) -> None:
        """Forget the writes; the callback may begin again."""
        self.writes = None

    def close(self) -> None:
        """Forget the writes, and refuse all that may follow: the callback has failed."""
        self.writes = None
        self.state = "failed"

    def apply(self, writes: Mapping[str, Any], author: Author, authors: Mapping[str, Author]) -> None:
        """Take the writes of a view of this view: they stand or fall with this one."""
        if self.state == "committed":
            self._base.apply(writes, author, authors)
            return
        for key, value in writes.items():
            self[key] = value
            self._authors[key] = authors.get(key, author)

    def last_change(self, key: str) -> tuple[str, object, int] | None:
        """Return who changed `key` last, during which event, and in which commit; None if nobody has."""
        if self.writes is None or key not in self.writes:
            return self._base.last_change(key)
        return *self._authors.get(key, (self._by, self._event)), self._since

    def _begin(self) -> dict[str, Any]:
        if self.state == "failed":
            raise ContextClosedError(
                f"{self._by!r} failed during {type(self._event).__name__}, and still writes to its context: "
                "what a failed callback leaves running must not change anything; end it with the callback"
            )
        self._authors: dict[str, Author] = {}
        self._since = self._base.root.commits
        writes: dict[str, Any] = {}
        self.writes = writes
        return writes

    def _settled(self, key: Key[Any], value: Any) -> Any:
        """Return what is to be stored when this view writes `value` to `key`, by the key's rules."""
        if value is not DELETED:
            value = key.checked(value, self._by)
        last = self._base.last_change(key)
        if key.on_conflict == "last" or last is None:
            return value
        by, event, number = last
        if by == self._by or (event is not self._event and number <= self._since):
            return value
        if key.on_conflict == "error":
            raise ConflictError(
                f"{by!r} and {self._by!r} both wrote {key!s} during {type(self._event).__name__}; "
                "let one of them decide, or give the key a rule that merges (Key(on_conflict=…))"
            )
        if value is DELETED or key not in self._base:
            return value
        return key.on_conflict(self._base[key], value)
