"""How much of the imports of this process was the compilation of sources that have no bytecode.

What is imported after the plugin is measured (`after_compilation`). What was imported before it can only be counted
(`count_sources`): the analysis estimates the seconds by the share of the sources that were compiled.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, SourceFileLoader
from itertools import takewhile
from typing import Any, Final, NamedTuple

from phasebus.initializer.bytecode import bytecode_of

COMPILE_SECONDS: Final = "compile_seconds"
"""The attribute of a step with the seconds in which it compiled sources; the steps inside it have their own."""

COMPILED_MODULES: Final = "compiled_modules"
"""The attribute with the number of these sources."""

COMPILED_BYTES: Final = "compiled_bytes"
"""The attribute with their size."""

IMPORTED_BYTES: Final = "imported_bytes"
"""The attribute with the size of all sources that a process has imported, in bytes; only if it has compiled some."""

SERVER_COMPILE_SECONDS: Final = "fork_server_compile_seconds"
"""The attribute of the start of a forked process: the seconds in which its server compiled sources beside the front end."""

_STRIDE: Final = 16
"""Of so many modules one is examined; if it has no bytecode, so are all others of its package."""

_METHOD: Final = "source_to_code"


class SourceCounts(NamedTuple):
    """How many imported sources this process has compiled, their size, and that of all that were examined, in bytes."""

    compiled: int = 0
    compiled_bytes: int = 0
    imported_bytes: int = 0


@dataclass(slots=True)
class Inherited:
    """What this process shares with its fork server: reading it would copy that memory.

    Attributes:
        last_module: The name of the last module that both have; None if this process shares none.
        counted: The sources that this process had imported before it forked its server.
        compile_seconds: How long the server compiled sources, without what it has from the process that it was forked from.
    """

    last_module: str | None = None
    counted: SourceCounts | None = None
    compile_seconds: float = 0.0

    def add_compilation(self, nanoseconds: int, _: int) -> None:
        """Add a compilation by the server."""
        self.compile_seconds += nanoseconds / 1e9

    def note_fork(self) -> None:
        """Note that this process has just been forked from a server."""
        self.last_module, self.counted = _last_module(), None

    def count_before_fork(self, since_ns: int) -> None:
        """Count the sources of this process, which is about to fork its server.

        Args:
            since_ns: When this process was created, in nanoseconds since the epoch.
        """
        self.counted = _count(since_ns, complete=True)
        self.last_module = _last_module()


inherited: Final = Inherited()
"""That of this process."""


def after_compilation(record: Callable[[int, int], None]) -> Callable[[], None]:
    """Call `record` after each compilation of an imported source in this process; return the function that ends it.

    A process whose loader has been changed is left alone.

    Args:
        record: Accepts the duration in nanoseconds and the size in bytes, in the thread that compiled.
    """
    if _METHOD in vars(SourceFileLoader):
        return lambda: None
    compile_source = SourceFileLoader.source_to_code
    active = True

    def source_to_code(self: SourceFileLoader, data: Any, *args: Any, **kwargs: Any) -> Any:
        began_ns = time.monotonic_ns()
        code = compile_source(self, data, *args, **kwargs)
        if active:
            with contextlib.suppress(Exception):  # the import comes first
                record(time.monotonic_ns() - began_ns, len(data))
        return code

    def end() -> None:
        nonlocal active
        active = False
        if vars(SourceFileLoader).get(_METHOD) is source_to_code:
            del SourceFileLoader.source_to_code  # the inherited method is there again

    SourceFileLoader.source_to_code = source_to_code  # type: ignore[method-assign, assignment]
    return end


def with_compilation(attributes: Mapping[str, Any], nanoseconds: int, size: int) -> dict[str, float]:
    """Return the attributes of a step about what it has compiled, with one more source.

    Args:
        attributes: Its attributes so far.
        nanoseconds: How long the compilation took.
        size: The size of the source in bytes.
    """
    return {
        COMPILE_SECONDS: round(attributes.get(COMPILE_SECONDS, 0.0) + nanoseconds / 1e9, 6),
        COMPILED_MODULES: attributes.get(COMPILED_MODULES, 0) + 1,
        COMPILED_BYTES: attributes.get(COMPILED_BYTES, 0) + size,
    }


def count_sources(since_ns: int) -> dict[str, int]:
    """Return how many modules this process has compiled itself, and the size of their sources, as attributes; {} for none.

    Those are the ones without usable bytecode, and those whose bytecode is newer than the process. Few files are examined
    where everything has bytecode.

    Args:
        since_ns: When this process was created, in nanoseconds since the epoch.
    """
    earlier = inherited.counted
    later = _count(since_ns, complete=earlier is not None)
    compiled, size, total = map(sum, zip(earlier or SourceCounts(), later, strict=True))
    return {COMPILED_MODULES: compiled, COMPILED_BYTES: size, IMPORTED_BYTES: total} if compiled else {}


def _count(since_ns: int, *, complete: bool) -> SourceCounts:
    """Return the counts of the sources that this process has imported itself.

    Args:
        since_ns: When this process was created, in nanoseconds since the epoch.
        complete: Whether the size of all sources is counted where none has been compiled.
    """
    found = _sources()
    compiled = {_package(each) for each in found[::_STRIDE] if _was_compiled(each, since_ns)}
    if not compiled and not complete:
        return SourceCounts()
    modules = size = total = 0
    for each in found:
        with contextlib.suppress(OSError):
            own = os.stat(str(each.origin)).st_size  # noqa: PTH116  # as in `bytecode_of`
            total += own
            if _package(each) in compiled and _was_compiled(each, since_ns):
                modules, size = modules + 1, size + own
    return SourceCounts(modules, size, total)


def _sources() -> Sequence[ModuleSpec]:
    """Return the modules that this process has loaded from sources, in order, without those that it shares.

    Those are not read, not even their names: that would copy their memory.
    """
    last, modules = inherited.last_module, reversed(sys.modules)
    names = list(modules if last is None else takewhile(last.__ne__, modules))  # at once: another thread may import
    found = []
    for name in reversed(names):
        with contextlib.suppress(Exception):  # anything can be in there
            # the attributes of some modules are imported when they are read
            spec = object.__getattribute__(sys.modules[name], "__dict__").get("__spec__")
            if type(spec) is ModuleSpec and type(spec.loader) is SourceFileLoader and spec.origin and spec.cached:
                found.append(spec)
    return found


def _last_module() -> str | None:
    return next(reversed(sys.modules), None)


def _package(spec: ModuleSpec) -> str:
    return spec.name.partition(".")[0]


def _was_compiled(spec: ModuleSpec, since_ns: int) -> bool:
    cached = str(spec.cached)
    try:
        if since_ns <= os.stat(cached).st_mtime_ns <= time.time_ns():  # noqa: PTH116
            return True
    except OSError:
        return True
    return bytecode_of(str(spec.origin), cached) != "usable"
