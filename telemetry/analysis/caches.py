"""Which caches a start found filled, and for those that it did not, what has changed since another start.

A step that uses a cache has the attribute ``cache.NAME``, ``hit`` or ``miss``, and a ``cache.NAME.factor.FACTOR`` for each
part of the cache's key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from phasebus.telemetry.journal import RecordedStep, Run

_PREFIX: Final = "cache."
_FACTOR: Final = ".factor."
_HIT, _MISS = "hit", "miss"

_FILES: Final = {
    None: "its files were not there, or could not be used",
    True: "its file was there, but could not be used",
    False: "its file was not there",
}

Change = tuple[str | None, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheUse:
    """One use of a cache by one step.

    Attributes:
        cache: The name of the cache.
        step: The step.
        hit: Whether the cache had everything that the step looked up.
        factors: The parts of its key.
        present: Of a miss, whether its file was there and could not be used; None if unknown.
        changes: Of a miss, the factors that differ from those of the other start, with the values before and now; None if
            the other start did not use this cache, or there is none.
    """

    cache: str
    step: RecordedStep
    hit: bool
    factors: Mapping[str, str] = field(default_factory=dict)
    present: bool | None = None
    changes: Mapping[str, Change] | None = None

    @property
    def explanation(self) -> str:
        """Why it missed, as text; "" for a hit."""
        if self.hit:
            return ""
        if self.changes is None:
            return "no earlier start to compare with"
        if not self.changes:
            return f"the key is the same: {_FILES[self.present]}"
        return ", ".join(
            f"{name}: {before or 'none'} → {now or 'none'}" for name, (before, now) in self.changes.items()
        )


def cache_uses(run: Run, before: Run | None = None) -> Sequence[CacheUse]:
    """Return the uses of caches by the steps of `run`, in their order.

    Args:
        run: The run.
        before: The start that it is compared with.
    """
    earlier: dict[tuple[str, str], CacheUse] = {}
    for use in _uses(before) if before is not None else ():
        earlier[use.cache, _process(use.step)] = use
    return [_compared(use, earlier.get((use.cache, _process(use.step)))) for use in _uses(run)]


def _uses(run: Run) -> list[CacheUse]:
    found: list[CacheUse] = []
    for step in run.steps:
        for name, value in step.attributes.items():
            if name.startswith(_PREFIX) and name.count(".") == 1 and value in (_HIT, _MISS):
                cache = name.removeprefix(_PREFIX)
                present = step.attributes.get(f"{name}.present")
                found.append(
                    CacheUse(
                        cache=cache,
                        step=step,
                        hit=value == _HIT,
                        factors=_factors(step.attributes, name),
                        present=present if isinstance(present, bool) else None,
                    )
                )
    return found


def _factors(attributes: Mapping[str, Any], name: str) -> dict[str, str]:
    prefix = name + _FACTOR
    return {each.removeprefix(prefix): str(value) for each, value in attributes.items() if each.startswith(prefix)}


def _compared(use: CacheUse, before: CacheUse | None) -> CacheUse:
    if use.hit or before is None:
        return use
    names = sorted({*use.factors, *before.factors})
    pairs = {name: (before.factors.get(name), use.factors.get(name)) for name in names}
    changes = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    return replace(use, changes=changes)


def _process(step: RecordedStep) -> str:
    return str(step.attributes.get("process", ""))
