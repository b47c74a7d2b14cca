"""How long each package takes to import, in a process that imports for seconds.

A package counts from the import of one of its modules by another package (or by the program) to the end of that import.
What it imports of other packages counts for them: the times of all add up to the time that passed.
Private seam: `importlib._bootstrap._find_and_load` of Python 3.11 to 3.13, which each import of a new module calls.
"""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from phasebus.initializer.engines.vllm.inside.compile_times import after_compilation

MOST: Final = 10
"""So many imports are reported."""

_bootstrap: Any = importlib._bootstrap  # noqa: SLF001


@dataclass(slots=True)
class _Import:
    module: str
    package: str
    began_ns: int
    outer: _Import | None
    ended_ns: int = 0
    inner_ns: int = 0
    compile_ns: int = 0

    @property
    def own_ns(self) -> int:
        return self.ended_ns - self.began_ns - self.inner_ns


class ImportTimes:
    """The imports of one thread while it is in `measuring`."""

    def __init__(self) -> None:
        self._imports: list[_Import] = []

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Measure the imports of this thread."""
        find_and_load, thread = getattr(_bootstrap, "_find_and_load", None), threading.get_ident()
        if find_and_load is None:  # another Python
            yield
            return
        innermost: _Import | None = None

        def measure(name: str, *args: Any) -> Any:
            nonlocal innermost
            package, outer = name.partition(".")[0], innermost
            if threading.get_ident() != thread or (outer is not None and outer.package == package):
                return find_and_load(name, *args)
            innermost = this = _Import(name, package, time.time_ns(), outer)
            try:
                return find_and_load(name, *args)
            finally:
                this.ended_ns = max(this.began_ns, time.time_ns())
                innermost = outer
                if outer is not None:
                    outer.inner_ns += this.ended_ns - this.began_ns
                self._imports.append(this)

        def record_compilation(nanoseconds: int, _: int) -> None:
            if threading.get_ident() == thread and innermost is not None:
                innermost.compile_ns += nanoseconds

        end = after_compilation(record_compilation)
        _bootstrap._find_and_load = measure  # noqa: SLF001
        try:
            yield
        finally:
            end()
            _bootstrap._find_and_load = find_and_load  # noqa: SLF001

    def longest(self) -> Sequence[dict[str, Any]]:
        """Return the imports with the longest times of their own, in the order they began, as values for JSON.

        Each has the name of the module, the own time in seconds, the beginning and the end in nanoseconds since the epoch,
        the index of the one that it happened in (None for none of these), and the seconds in which sources were compiled for
        it, without those inside it that are reported as well.
        """
        chosen = sorted(sorted(self._imports, key=lambda each: -each.own_ns)[:MOST], key=lambda each: each.began_ns)
        indices = {id(each): index for index, each in enumerate(chosen)}
        compile_ns = [0] * len(chosen)
        for each in self._imports:
            reported = next((indices[id(outer)] for outer in (each, *_outer(each)) if id(outer) in indices), None)
            if reported is not None:
                compile_ns[reported] += each.compile_ns
        return [
            {
                "module": each.module,
                "seconds": round(each.own_ns / 1e9, 3),
                "began_ns": each.began_ns,
                "ended_ns": each.ended_ns,
                "inside": next((indices[id(outer)] for outer in _outer(each) if id(outer) in indices), None),
                "compile_seconds": round(compile_ns[index] / 1e9, 3),
            }
            for index, each in enumerate(chosen)
        ]


def _outer(each: _Import) -> Iterator[_Import]:
    while each.outer is not None:
        each = each.outer
        yield each
