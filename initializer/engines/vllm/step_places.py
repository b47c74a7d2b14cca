"""Which step each step of an engine belongs to.

A span names its parent, but the engine's parents mislead: a worker's warm-up names the start of the executor, which has
ended by then. A step belongs to the first of its ancestors that ran all the time that it ran.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from phasebus.initializer.engines.vllm.reports import ProcessKey

_MAX_DEPTH: Final = 64
_MAX_CANDIDATES: Final = 64
"""How many of a process's latest steps are considered."""


@dataclass(slots=True)
class _Place:
    parent: str | None
    key: ProcessKey
    began_ns: int
    ended_ns: int | None = None

    def contains(self, began_ns: int, ended_ns: int) -> bool:
        """Return whether it ran from `began_ns` to `ended_ns`, nanoseconds since the epoch, as far as is known."""
        return self.began_ns <= began_ns and (self.ended_ns is None or self.ended_ns >= ended_ns)


class StepPlaces:
    """The steps of an engine, by their times and parents."""

    def __init__(self) -> None:
        self._places: dict[str, _Place] = {}
        self._latest: dict[ProcessKey, list[str]] = {}

    def begin(self, step: str, parent: str | None, key: ProcessKey, began_ns: int) -> str | None:
        """Record that a step has begun; return the id of the step it belongs to, as far as that is known by now.

        Args:
            step: Its id.
            parent: The id of the parent that its span names.
            key: Its process.
            began_ns: When it began, in nanoseconds since the epoch.
        """
        self._places[step] = _Place(parent, key, began_ns)
        self._latest.setdefault(key, []).append(step)
        return self._parent(step, began_ns)

    def after_start(self, parent: str, began_ns: int, rounding_ns: int) -> int:
        """Return `began_ns`, or the beginning of `parent` if that is later by less than `rounding_ns`, in nanoseconds."""
        outer = self._places.get(parent)
        return outer.began_ns if outer is not None and 0 < outer.began_ns - began_ns < rounding_ns else began_ns

    def end(self, step: str, ended_ns: int) -> str | None:
        """Record that a step has ended; return the id of the step it belongs to."""
        place = self._places[step]
        place.ended_ns = max(place.began_ns, ended_ns)
        return self._parent(step, place.ended_ns)

    def _parent(self, step: str, ended_ns: int) -> str | None:
        place = self._places[step]
        at = place.parent
        for _ in range(_MAX_DEPTH):
            outer = self._places.get(at or "")
            if outer is None or outer.contains(place.began_ns, ended_ns):
                break
            at = outer.parent
        if at == place.parent or at not in self._places:
            return at
        return self._innermost(step, at, ended_ns)

    def _innermost(self, step: str, ancestor: str, ended_ns: int) -> str:
        """Return the last begun step below `ancestor`, in the process of that, which contains the step."""
        began_ns = self._places[step].began_ns
        for other in reversed(self._latest[self._places[ancestor].key][-_MAX_CANDIDATES:]):
            contains = other not in (step, ancestor) and self._places[other].contains(began_ns, ended_ns)
            if contains and self._is_below(other, ancestor, step):
                return other
        return ancestor

    def _is_below(self, other: str, ancestor: str, step: str) -> bool:
        at: str | None = other
        for _ in range(_MAX_DEPTH):
            at = self._places[at].parent if at in self._places else None
            if at in (ancestor, step, None):
                return at == ancestor
        return False
