"""What a fork server has imported, as far as a later start can compare it without importing: the installation's state."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

_MAX_SOURCES: Final = 50_000
"""How many files of an editable installation are compared."""

_DATED: Final = (".dist-info", ".egg-info", ".egg-link", ".pth", ".py", ".so")
"""The ends of the names in `site-packages` whose times count: those of distributions, of paths and of single modules."""

_SKIPPED: Final = frozenset({"node_modules", "__pycache__", "build", "tests"})


def fingerprint(environment: Mapping[str, str]) -> str:
    """Return a text that changes with the interpreter, the machine, and each installed, removed or edited package.

    Installing a package changes the names in the folder that it is installed into, or the time of its `.dist-info`. Of an
    editable installation, and of a folder in PYTHONPATH, the newest source counts.

    Args:
        environment: The environment of the processes that import.
    """
    facts: list[object] = [sys.version, sys.executable, platform.release(), platform.machine()]
    for name in sys.path:
        folder = Path(name)
        if name and os.path.isdir(folder) and not _is_script_folder(folder):
            facts.append((name, _installed(folder)))
            facts.extend((project, _newest(Path(project))) for project in _editable_projects(folder))
    given = filter(None, environment.get("PYTHONPATH", "").split(":"))
    facts.extend((name, _newest(Path(name))) for name in given)
    return hashlib.sha256(json.dumps(facts).encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _is_script_folder(folder: Path) -> bool:
    """Return whether a folder is on the path because of the running script, or of the working folder."""
    return folder == Path(sys.executable).parent or folder.name not in ("site-packages", "dist-packages")


def _installed(folder: Path) -> list[tuple[str, int]]:
    """Return the names in a folder, with the times of those that count, in nanoseconds since the epoch.

    The time of the folder itself does not count: Python changes it when it makes `__pycache__`.
    """
    try:
        with os.scandir(folder) as entries:
            listed = [entry for entry in entries if not entry.name.startswith((".", "__pycache__"))]
    except OSError:  # nothing can be imported from it
        return []
    return sorted((entry.name, _changed_ns(entry) if entry.name.endswith(_DATED) else 0) for entry in listed)


def _changed_ns(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_mtime_ns
    except OSError:  # it has been removed
        return 0


def _editable_projects(folder: Path) -> Iterator[str]:
    for path in sorted(folder.glob("*.dist-info/direct_url.json")):
        try:
            described: Any = json.loads(path.read_text())
            if described.get("dir_info", {}).get("editable"):
                yield unquote(urlsplit(described["url"]).path)
        except (OSError, ValueError, KeyError, AttributeError):
            continue


def _newest(project: Path) -> int:
    """Return when a source of a project was last changed, in nanoseconds since the epoch."""
    newest, number = 0, 0
    for folder, folders, files in os.walk(project):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in _SKIPPED]
        for name in files:
            if name.endswith((".py", ".so")):
                try:
                    newest = max(newest, Path(folder, name).lstat().st_mtime_ns)
                except OSError:
                    continue
                number += 1
                if number >= _MAX_SOURCES:
                    return newest
    return newest
