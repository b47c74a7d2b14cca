"""The files that a fork server has imported: one that is edited in place leaves the state of the installation as it is."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator


class ImportedFiles:
    """The files of the modules that this process has imported by now, with the times of their last changes."""

    def __init__(self) -> None:
        self._times = {path: _changed_ns(path) for path in _files()}

    def changed(self) -> str | None:
        """Return the path of one that has been edited or removed since; None without one."""
        return next((path for path, time_ns in self._times.items() if _changed_ns(path) != time_ns), None)


def _files() -> Iterator[str]:
    for module in list(sys.modules.values()):
        path = getattr(module, "__dict__", {}).get("__file__")  # an attribute of a lazy module may import another one
        if isinstance(path, str):
            yield path


def _changed_ns(path: str) -> int | None:
    try:
        return os.stat(path).st_mtime_ns  # noqa: PTH116  # thousands of files
    except (OSError, ValueError):  # in an archive, for example
        return None
