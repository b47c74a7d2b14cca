"""Where a platform without Triton replaces kernels: vLLM looks for them in the modules that refer to one, not in all modules.

A worker reads each attribute of each module, to replace a kernel wherever it was imported. Reading an object writes its
reference count, so a fork would get a copy of most of the memory that it shares with its server: more than 100 MiB. The garbage
collector finds what refers to a kernel without writing. Read from vLLM 0.32 (`vllm/triton_utils/dispatcher.py`).
"""

from __future__ import annotations

import functools
import gc
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any, Final

import wrapt

logger = logging.getLogger("phasebus.engine")

KERNEL_SEARCH: Final = ("vllm.triton_utils.dispatcher", "_rebind_kernels")
"""The function that looks for kernels: as the attributes of modules, and as the attribute `kernel` of those."""

_MODULE_KEYS: Final = frozenset({"__name__", "__spec__", "__loader__"})
_FROZEN_BY_PYTHON: Final = 1000
"""Python 3.12 has frozen 375 objects when it starts, 3.11 and 3.13 none."""


def limit_kernel_search() -> None:
    """Limit the search in this process, which has been forked."""
    module, function = KERNEL_SEARCH
    wrapt.register_post_import_hook(functools.partial(_limit, function), module)


def _limit(function: str, module: ModuleType) -> None:
    search = getattr(module, function, None)
    if search is not None and getattr(module, "sys", None) is sys:
        setattr(module, function, functools.partial(_search_referrers, module, search))


def _search_referrers(module: ModuleType, search: Callable[..., Any], overrides: Sequence[Any], *others: Any) -> Any:
    """Let `search`, a function of `module`, see those of `sys.modules` in which it would find a kernel."""
    try:
        found = modules_referring_to([original for original, _ in overrides])
    except Exception as error:  # noqa: BLE001  # another version's arguments, or a module under another name
        logger.debug("kernels are looked for in all modules: %s", error)
        return search(overrides, *others)
    limited = ModuleType("sys")
    limited.__dict__.update(vars(sys), modules=found)
    module.sys = limited  # type: ignore[attr-defined]
    try:
        return search(overrides, *others)
    finally:
        module.sys = sys  # type: ignore[attr-defined]


def modules_referring_to(kernels: Sequence[object]) -> dict[str, Any]:
    """Return the modules that have one of `kernels` as an attribute, or an object whose attribute `kernel` is one.

    Raises:
        LookupError: The namespace of a module is not that of the module with its name.
    """
    frozen, enabled = gc.get_freeze_count() > _FROZEN_BY_PYTHON, gc.isenabled()
    gc.disable()
    try:
        if frozen:  # only what is not frozen is searched
            gc.unfreeze()
        direct = gc.get_referrers(*kernels)
        owners = list(_owners(direct))
        return dict(map(_named, _namespaces([*direct, *(gc.get_referrers(*owners) if owners else ())])))
    finally:
        if frozen:
            gc.freeze()
        if enabled:
            gc.enable()


def _owners(referrers: Sequence[Any]) -> Iterator[Any]:
    """Yield the objects that have a referrer as their attributes, or that are one: modules are not among them."""
    namespaces = []
    for each in referrers:
        if isinstance(each, dict):
            if "kernel" in each and not each.keys() >= _MODULE_KEYS:
                namespaces.append(each)
        elif not isinstance(each, (list, tuple, ModuleType)) and hasattr(each, "__dict__"):
            yield each
    if namespaces:
        yield from (
            each for each in gc.get_referrers(*namespaces) if each is not namespaces and hasattr(each, "__dict__")
        )


def _namespaces(referrers: Sequence[Any]) -> Iterator[dict[str, Any]]:
    for each in referrers:
        if isinstance(each, ModuleType):
            yield vars(each)
        elif isinstance(each, dict) and each.keys() >= _MODULE_KEYS:
            yield each


def _named(namespace: dict[str, Any]) -> tuple[str, Any]:
    name = namespace["__name__"]
    module = sys.modules.get(name)
    if module is None or vars(module) is not namespace:
        raise LookupError(f"{name} is another module")
    return name, module
