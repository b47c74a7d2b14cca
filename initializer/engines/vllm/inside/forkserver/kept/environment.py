"""The variables that a fork server's imports have read: a command with other values of them is not forked from it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Final

from phasebus.initializer.engines.vllm.inside.forkserver.imported import LIBRARY_PATH, READ_WHEN_LOADED, is_same
from phasebus.telemetry.redaction import is_secret_name

_OF_ONE_START: Final = ("PHASEBUS_", "OTEL_", "TRACEPARENT", "TRACESTATE", "BAGGAGE")
_READ_BY_LIBRARIES: Final = (*READ_WHEN_LOADED, "LC_", "LANG", "TZ", "SSL", "OPENSSL_", "TQDM_", "NETWORKX_")
_HARMLESS: Final = frozenset(
    {
        "PATH",
        "PYTHONBREAKPOINT",
        "PWD",
        "OLDPWD",
        "TERM",
        "COLUMNS",
        "LINES",
        "SHLVL",
        "_",
        "COLORTERM",
        "NO_COLOR",
        "FORCE_COLOR",
        "LS_COLORS",
    }
)
"""Variables without influence on what is imported: a fork has its own values of them."""

_OF_ONE_PROCESS: Final = frozenset(
    {"RAY_JOB_ID", "RAY_RAYLET_PID", "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"}
)
"""Variables that Ray sets for one worker, and that are read when Ray connects or a device is initialized: in the fork."""


class _RecordingEnvironment(os._Environ):  # type: ignore[type-arg]  # noqa: SLF001
    """The environment of this process, which remembers which variables are read.

    Copying all of them, or searching for some by the beginnings of their names, does not count as reading each of them.
    """

    def __getitem__(self, name: str) -> str:
        if _copied and name == _copied[0]:
            _copied.popleft()
        else:
            _copied.clear()
            if isinstance(name, str):  # `os.get_exec_path` asks for one in bytes, which no environment has
                _read.add(name)
        return super().__getitem__(name)  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[str]:
        names = list(super().__iter__())
        _copied.clear()
        for name in names:
            _copied.append(name)  # its value is asked for next by `items`, and after all names by `dict`
            yield name


_read: set[str] = set()
_copied: deque[str] = deque()
_initial: dict[str, str] = {}


def neutral_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what a server is started with: no secret, and nothing that belongs to one start."""
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(_OF_ONE_START) and not is_secret_name(name)
    }


def record_reads() -> None:
    """Remember from now on which variables this process reads."""
    _initial.clear()
    _initial.update(os.environ)
    os.environ.__class__ = _RecordingEnvironment


def stop_recording() -> None:
    """Read the environment as usual again."""
    os.environ.__class__ = os._Environ  # noqa: SLF001


def imported_with() -> dict[str, str | None]:
    """Return the variables that the imports depend on, with their values then; None for one that was not set."""
    names = {name for name in _initial if name.startswith(_READ_BY_LIBRARIES)} | _read
    return {name: _initial.get(name) for name in names if _is_compared(name)}


def differences(environment: Mapping[str, str], imported: Mapping[str, str | None] | None = None) -> list[str]:
    """Return the variables that imports depend on, and whose values in `environment` are others.

    Args:
        environment: The environment of a command.
        imported: What `imported_with` returns in the server; None in the server itself, or in a fork of it.
    """
    before = imported_with() if imported is None else imported
    names = {*before, *(name for name in environment if name.startswith(_READ_BY_LIBRARIES))}
    return sorted(
        name for name in names if _is_compared(name) and not is_same(name, environment.get(name), before.get(name))
    )


def _is_compared(name: str) -> bool:
    return name not in _HARMLESS | _OF_ONE_PROCESS and not name.startswith(_OF_ONE_START) and not is_secret_name(name)


def set_by_imports(environment: Mapping[str, str]) -> dict[str, str | None]:
    """Return the variables that the imports have set, or removed (None), as they would in a process with `environment`."""
    names = {*os.environ, *_initial}
    if environment.get(LIBRARY_PATH) != _initial.get(LIBRARY_PATH):  # both mean the same; it keeps its own
        names.discard(LIBRARY_PATH)
    return {name: os.environ.get(name) for name in names if os.environ.get(name) != _initial.get(name)}
