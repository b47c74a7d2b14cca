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
from typing import Any, Final

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


@dataclass(slots=True)
class Inherited:
    """What this process has from the fork server that it was forked from.

    Attributes:
        modules: The names of the modules.
        compile_seconds: How long the server compiled sources, without what it has from the process that it was forked from.
    """

    modules: frozenset[str] = frozenset()
    compile_seconds: float = 0.0

    def add_compilation(self, nanoseconds: int, _: int) -> None:
        """Add a compilation by the server."""
        self.compile_seconds += nanoseconds / 1e9

    def note_fork(self) -> None:
        """Note that this process has just been forked from a server."""
        self.modules = frozenset(sys.modules)


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
    found = _sources()
    sampled = found[::_STRIDE]
    compiled = {_package(each) for each in sampled if _was_compiled(each, since_ns)}
    if not compiled:
        return {}
    modules = size = total = 0
    for each in found:
        with contextlib.suppress(OSError):
            own = os.stat(str(each.origin)).st_size  # noqa: PTH116  # as in `bytecode_of`
            total += own
            if _package(each) in compiled and _was_compiled(each, since_ns):
                modules, size = modules + 1, size + own
    return {COMPILED_MODULES: modules, COMPILED_BYTES: size, IMPORTED_BYTES: total}


def _sources() -> Sequence[ModuleSpec]:
    """Return the modules that this process has loaded from sources.

    Inherited ones are not read: that would copy the memory that a fork shares with its server.
    """
    found = []
    for name in [each for each in list(sys.modules) if each not in inherited.modules]:
        with contextlib.suppress(Exception):  # anything can be in there
            # the attributes of some modules are imported when they are read
            spec = object.__getattribute__(sys.modules[name], "__dict__").get("__spec__")
            if type(spec) is ModuleSpec and type(spec.loader) is SourceFileLoader and spec.origin and spec.cached:
                found.append(spec)
    return found


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
