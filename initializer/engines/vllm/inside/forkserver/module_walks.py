"""Inspecting functions without a walk through all modules: each would give a fork its own copy of a page of its server.

`inspect.getmodule` reads every module of the process for a file that it does not know, and the signature of a built-in function
with a text copies their dictionary; registering an operator of torch does both. What a fork has from its server is read
before the fork; after it, only later modules are.

Private seams of Python 3.11 to 3.13: that `inspect` walks through `sys.modules.copy()`, and remembers the modules by file.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from itertools import takewhile
from types import ModuleType
from typing import Any

_last_module: str | None = None
"""The name of the last module that `inspect` knows."""


def limit_module_walks() -> None:
    """Let `inspect`, in this process and its forks, walk through no module that exists now.

    Nothing is done where another library has replaced the function of `inspect`.
    """
    global _last_module  # noqa: PLW0603  # a fact about the process, which its forks inherit
    if inspect.getmodule.__module__ != "inspect" or not isinstance(getattr(inspect, "modulesbyfile", None), dict):
        return
    last = next(reversed(sys.modules), None)
    inspect.getmodule(compile("", __name__, "exec"))  # of no module, so it reads all that it does not know
    if vars(inspect).get("sys") is sys:
        inspect.sys = _System("sys")  # type: ignore[attr-defined]
    _last_module = last


class _System(ModuleType):
    """The module `sys`, with a view of its modules."""

    @property
    def modules(self) -> _Modules:
        """The modules of the process."""
        return _Modules()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys, name)


class _Modules:
    """The modules of the process; a copy has only the later ones until another is looked up."""

    def copy(self) -> _Copy:
        """Return the modules that `inspect` does not know."""
        modules = reversed(sys.modules)
        names = list(modules if _last_module is None else takewhile(_last_module.__ne__, modules))  # at once
        return _Copy({name: sys.modules[name] for name in reversed(names) if name in sys.modules})

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.modules, name)

    def __getitem__(self, name: str) -> ModuleType:
        return sys.modules[name]

    def __contains__(self, name: object) -> bool:
        return name in sys.modules

    def __iter__(self) -> Iterator[str]:
        return iter(sys.modules)

    def __len__(self) -> int:
        return len(sys.modules)


class _Copy(dict[str, ModuleType]):
    def __missing__(self, name: str) -> ModuleType:
        return sys.modules[name]
