"""Whether the libraries that an engine imports are compiled. Nothing is imported for it."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from phasebus.initializer.bytecode import bytecode_of
from phasebus.initializer.cli.doctor.findings import Finding

_LARGE = ("torch", "transformers", "ray")
"""Libraries with thousands of modules, of which each process of an engine imports many."""


def find_bytecode(names: Sequence[str] = _LARGE) -> Iterator[Finding]:
    """Yield whether installed libraries are compiled. Otherwise each start, or each of its processes, compiles them.

    Args:
        names: The names of the libraries.
    """
    sources = [source for name in names if (source := _source_of(name)) is not None]
    states = {source: bytecode_of(str(source), str(_compiled(source))) for source in sources}
    missing = [source for source, state in states.items() if state != "usable"]
    if not sources:
        return
    if not missing:
        yield Finding("versions", "bytecode", "libraries are compiled")
        return
    shown = ", ".join(source.parent.name for source in missing)
    folders = " ".join(dict.fromkeys(str(source.parent.parent) for source in missing))
    is_writable = True
    if sys.dont_write_bytecode:
        cause = "PYTHONDONTWRITEBYTECODE is set, so each process compiles what it imports"
    elif not (is_writable := _is_writable(_compiled(missing[0]))):
        cause = "the folder is not writable, so each process compiles what it imports"
    else:
        cause = "the next start compiles what it imports, and in a new container each first start"
    are_stale = "stale" in states.values()
    state = "have bytecode of other sources, by their times and sizes" if are_stale else "not compiled"
    mode = "-f --invalidation-mode unchecked-hash " if are_stale else ""  # copying into an image may change the times
    advice = f"compile once, in an image when it is built: python -m compileall -q -j 0 {mode}{folders}"
    if not is_writable:
        advice += "; or set PYTHONPYCACHEPREFIX to a folder on a volume"
    yield Finding("versions", "bytecode", f"{shown} {state}: {cause}", "note", advice)


def _source_of(name: str) -> Path | None:
    """Return the path of a package's ``__init__.py``; None if the package is not installed."""
    with suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None and spec.origin.endswith("__init__.py"):
            return Path(spec.origin)
    return None


def _compiled(source: Path) -> Path:
    return Path(importlib.util.cache_from_source(str(source)))


def _is_writable(file: Path) -> bool:
    """Return whether `file` can be made, in a folder that may have to be made first."""
    folder = next(each for each in file.parents if os.path.exists(each))
    return os.access(folder, os.W_OK)
