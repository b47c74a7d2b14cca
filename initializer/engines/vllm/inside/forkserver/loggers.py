"""Configuring logging without a visit to every logger: each one would give a fork its own copy of a page of its server.

`logging.config.dictConfig` writes to every logger, and clears the caches of all for each one that it resets: vLLM and its
libraries have thousands. Most are as they were created, so there is nothing to reset. This module notes the others, before the
fork and after it, and lets `dictConfig` find only them. Where that disables existing loggers, it finds all of them.

Private seams of Python 3.11 to 3.13: `logging.Logger._cache` and `logging.Manager._clear_cache`, and that `logging.config`
finds the existing loggers in `logging.root.manager.loggerDict`.
"""

from __future__ import annotations

import logging
import logging.config
from collections.abc import Iterable, Sequence
from functools import wraps
from types import ModuleType, SimpleNamespace
from typing import Any, Final

ENGINE_LOGGER: Final = "vllm"
"""The logger that vLLM configures. If it is created in a fork, each of its children is written to."""

_changed: dict[int, logging.Logger] = {}
"""The loggers that may differ from a new one, by their ids: those with settings of their own, and those created since."""

_used: list[_Cache] = []
"""The caches of the other loggers that are not empty."""


class _Cache(dict[int, bool]):
    """Whether a logger is enabled for a level, for each level that has been asked for."""

    __slots__ = ()

    def __setitem__(self, level: int, enabled: bool) -> None:
        _used.append(self)
        super().__setitem__(level, enabled)


def limit_logger_visits() -> None:
    """Let configurations of logging, in this process and its forks, visit no logger that is now as it was created.

    Nothing is done where another library has replaced the functions of `logging`.
    """
    if not _is_limited():
        if not _is_original():
            return
        logging.getLogger(ENGINE_LOGGER)
        found = list(logging.Logger.manager.loggerDict.values())
        _changed.update((id(each), each) for each in found if isinstance(each, logging.Logger))
        _note_changes()
        _limit_clearing()
        _limit_configuration()
    for each in tuple(_changed.values()):
        if type(each) is logging.Logger and _is_as_created(each):
            each._cache = _Cache()  # type: ignore[attr-defined]  # noqa: SLF001
            del _changed[id(each)]


def _is_limited() -> bool:
    return "__setattr__" in vars(logging.Logger) and vars(logging.Logger)["__setattr__"].__module__ == __name__


def _is_original() -> bool:
    functions = (
        logging.Logger.isEnabledFor,
        logging.Logger.addHandler,
        logging.Manager._clear_cache,  # type: ignore[attr-defined]  # noqa: SLF001
        logging.config.DictConfigurator.configure,
    )
    return (
        all(each.__module__ in ("logging", "logging.config") for each in functions)
        and type(logging.Logger.manager) is logging.Manager
        and logging.Logger.__setattr__ is object.__setattr__
        and vars(logging.config).get("logging") is logging
    )


def _is_as_created(each: logging.Logger) -> bool:
    return each.level == logging.NOTSET and each.propagate is True and not each.disabled and not each.handlers


def _note_changes() -> None:
    """Note each logger that is created, or whose settings are changed."""
    add_handler = logging.Logger.addHandler

    def set_attribute(self: logging.Logger, name: str, value: Any) -> None:
        _changed[id(self)] = self
        object.__setattr__(self, name, value)

    @wraps(add_handler)
    def note_and_add(self: logging.Logger, hdlr: logging.Handler) -> None:
        _changed[id(self)] = self
        add_handler(self, hdlr)

    logging.Logger.__setattr__ = set_attribute  # type: ignore[method-assign, assignment]
    logging.Logger.addHandler = note_and_add  # type: ignore[method-assign]


def _limit_clearing() -> None:
    """Clear the caches that are not empty, instead of all."""
    clear_all, manager = logging.Manager._clear_cache, logging.Logger.manager  # type: ignore[attr-defined]  # noqa: SLF001

    @wraps(clear_all)
    def clear_used(self: logging.Manager) -> None:
        if self is not manager:
            clear_all(self)
            return
        with logging._lock:  # type: ignore[attr-defined]  # noqa: SLF001
            for cache in _used:
                cache.clear()
            _used.clear()
            for each in (self.root, *_changed.values()):
                vars(each).get("_cache", {}).clear()  # one that is being created may have none yet

    logging.Manager._clear_cache = clear_used  # type: ignore[attr-defined]  # noqa: SLF001


def _limit_configuration() -> None:
    configure_all = logging.config.DictConfigurator.configure

    @wraps(configure_all)
    def configure(self: logging.config.DictConfigurator) -> None:
        config: Any = self.config
        if config.get("incremental") or config.get("disable_existing_loggers", True):
            configure_all(self)
            return
        with logging._lock:  # type: ignore[attr-defined]  # noqa: SLF001
            root = SimpleNamespace(manager=SimpleNamespace(loggerDict=_Existing(config.get("loggers") or ())))
            limited = ModuleType(logging.__name__)
            limited.__dict__.update(vars(logging), root=root)
            logging.config.logging = limited  # type: ignore[attr-defined]
            try:
                configure_all(self)
            finally:
                logging.config.logging = logging  # type: ignore[attr-defined]

    logging.config.DictConfigurator.configure = configure  # type: ignore[method-assign]


class _Existing:
    """The loggers that a configuration finds: those that it names, and those that may differ from a new one."""

    def __init__(self, named: Iterable[str]) -> None:
        self._named = named

    def keys(self) -> Sequence[str]:
        """Return their names."""
        known = logging.Logger.manager.loggerDict
        named = (name for name in self._named if name in known)
        changed = (each.name for each in tuple(_changed.values()) if known.get(each.name) is each)
        return list(dict.fromkeys([*named, *changed]))

    def __getitem__(self, name: str) -> Any:
        return logging.Logger.manager.loggerDict[name]
