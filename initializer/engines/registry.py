"""The installed engines, by name: the built-in ones and those that packages add by entry points."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from phasebus.initializer.engines.optional import (
    CommandLauncher,
    CommandObserver,
    EngineObserver,
    KeepsForkServer,
    ObservableLauncher,
)
from phasebus.initializer.engines.protocol import EngineError, Launcher

logger = logging.getLogger("phasebus.engine")

GROUP: Final = "phasebus.engines"
"""The entry point group of engines."""

NO_ENGINE: Final = "none"
"""The name of the engine that serves nothing."""

DEFAULT_ENGINE: Final = "vllm"
"""The name of the engine where none is named."""

BUILT_IN: Final = {
    DEFAULT_ENGINE: "phasebus.initializer.engines.vllm.launch:VLLM",
    NO_ENGINE: "phasebus.initializer.engines.none:NoEngine",
}
"""The entry points of phasebus itself, repeated here: they must work where phasebus is shipped without its metadata
(Ray's ``py_modules``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledEngine:
    """An engine that a configuration may name.

    Attributes:
        name: Its name.
        value: The object that its entry point names: ``module:attribute``.
        package: The distribution that has it, with its version; "phasebus" for a built-in one.
    """

    name: str
    value: str
    package: str


def find_launcher(name: str) -> Launcher:
    """Return the launcher of the engine called `name`.

    Raises:
        EngineError: None is installed under that name, several are, or it cannot be imported.
    """
    entry = EntryPoint(name, BUILT_IN[name], GROUP) if name in BUILT_IN else _installed()[check_installed(name)]
    try:
        launcher: Launcher = entry.load()()
    except Exception as error:
        raise EngineError(
            f"the engine {name!r} cannot be imported from {entry.value!r}: {type(error).__name__}: {error}"
        ) from error
    return launcher


def find_observer(name: str = DEFAULT_ENGINE) -> EngineObserver:
    """Return an observer of an engine that a library starts.

    Raises:
        EngineError: It is not installed, cannot be imported, or cannot be observed.
    """
    launcher = find_launcher(name)
    if not isinstance(launcher, ObservableLauncher):
        raise EngineError(
            f"the engine {name!r} cannot be observed where a library starts it: its launcher has no observer"
        )
    return launcher.observer()


def find_command_observer(arguments: Sequence[str]) -> CommandObserver:
    """Return the observer of a command: of the first engine that recognizes it, or else of the default engine.

    The built-in engines come first: an engine that a package adds is imported only for a command that is none of theirs, and
    left out with a warning if it fails.

    Raises:
        EngineError: The default engine cannot be imported.
    """
    for name in engine_names():
        try:
            launcher = find_launcher(name)
            if isinstance(launcher, CommandLauncher) and launcher.recognizes(arguments):
                return launcher.command_observer(arguments)
        except Exception as error:  # noqa: BLE001  # the command may be another engine's
            logger.warning("the engine %r cannot observe a command: %s: %s", name, type(error).__name__, error)
    launcher = find_launcher(DEFAULT_ENGINE)
    assert isinstance(launcher, CommandLauncher)  # noqa: S101  # it is built in
    return launcher.command_observer(arguments)


def find_fork_server_launcher() -> KeepsForkServer:
    """Return the launcher of the default engine, which has a fork server that may stay.

    Raises:
        EngineError: It cannot be imported.
    """
    launcher = find_launcher(DEFAULT_ENGINE)
    assert isinstance(launcher, KeepsForkServer)  # noqa: S101  # it is built in
    return launcher


def check_installed(name: str) -> str:
    """Return `name`, if an engine is installed under it.

    Raises:
        EngineError: None is; the message has the names of those that are.
    """
    if name not in BUILT_IN and name not in _installed():
        raise EngineError(
            f"no engine {name!r} is installed; there are {', '.join(map(repr, sorted({*BUILT_IN, *_installed()})))}, "
            f"and a package may add one by an entry point in the group {GROUP}"
        )
    return name


def engine_names() -> Sequence[str]:
    """Return the names of the installed engines, the built-in ones first; only those if two packages install one name."""
    try:
        return [*BUILT_IN, *sorted(_installed())]
    except EngineError:
        return list(BUILT_IN)


def installed_engines() -> list[InstalledEngine]:
    """Return the engines that a configuration may name, the built-in ones first.

    Raises:
        EngineError: Two packages install different engines under one name.
    """
    built_in = [InstalledEngine(name=name, value=value, package="phasebus") for name, value in BUILT_IN.items()]
    added = [
        InstalledEngine(name=name, value=entry.value, package=_package(entry))
        for name, entry in sorted(_installed().items())
    ]
    return [*built_in, *added]


@cache
def _installed() -> Mapping[str, EntryPoint]:
    """Return the entry points that packages add, by name; a built-in engine cannot be replaced."""
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP):
        if entry.name in BUILT_IN:
            continue
        if entry.name in found and found[entry.name].value != entry.value:
            raise EngineError(
                f"two packages install an engine {entry.name!r}: {found[entry.name].value!r} and {entry.value!r}; "
                "uninstall one"
            )
        found[entry.name] = entry
    return found


def _package(entry: EntryPoint) -> str:
    return "" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"
