"""In which order the entries of a table have changed, for readers that pass the version that they have."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

_SPARE_CHANGES: Final = 1000
"""Outdated changes that are kept before they are dropped, beside one for each current change."""


class ChangeLog:
    """The last change of each entry. It is not safe for threads.

    Args:
        removals: Maximum number of removals that are remembered.

    Attributes:
        version: The version of the last change.
    """

    def __init__(self, removals: int) -> None:
        self._removals = removals
        self.version = 0
        self._changed: dict[str, int] = {}  # the version of each entry
        self._removed: OrderedDict[str, int] = OrderedDict()  # the versions of the last removals
        self._resumable = 0  # a reader with an earlier version has missed forgotten removals
        self._versions: list[int] = []  # of all changes; outdated ones are dropped later
        self._ids: list[str] = []

    def __len__(self) -> int:
        """The number of changes that are kept, also outdated ones."""
        return len(self._versions)

    def change(self, id_: str) -> None:
        """Record that an entry has changed, or is new."""
        self._removed.pop(id_, None)
        self._changed[id_] = self._next_version(id_)

    def remove(self, id_: str) -> None:
        """Record that an entry was removed."""
        del self._changed[id_]
        self._removed[id_] = self._next_version(id_)
        if len(self._removed) > self._removals:
            _, self._resumable = self._removed.popitem(last=False)

    def is_resumable(self, version: int) -> bool:
        """Return whether a reader with `version` can continue with `since`, and does not need all entries."""
        return self._resumable <= version <= self.version

    def since(self, version: int) -> Iterator[tuple[int, str, bool]]:
        """Yield the changes after a version: the version of each, the entry's id, and whether it is still there."""
        for at in range(bisect_right(self._versions, version), len(self._versions)):
            id_, changed = self._ids[at], self._versions[at]
            if self._changed.get(id_) == changed:
                yield changed, id_, True
            elif self._removed.get(id_) == changed:
                yield changed, id_, False

    def _next_version(self, id_: str) -> int:
        """Return a new version, logged as a change of the entry."""
        self.version += 1
        self._versions.append(self.version)
        self._ids.append(id_)
        if len(self._versions) > 2 * (len(self._changed) + len(self._removed)) + _SPARE_CHANGES:
            current = [
                (version, each)
                for version, each in zip(self._versions, self._ids, strict=True)
                if version in (self.version, self._changed.get(each), self._removed.get(each))
            ]
            self._versions, self._ids = [version for version, _ in current], [each for _, each in current]
        return self.version
