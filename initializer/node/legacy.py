"""Adapters for two older interfaces: a class that does the whole initialization, and a strategy with hooks.

The adapters find methods by name. A misspelled name would silently skip a step, so it is rejected.
"""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from inspect import getattr_static, isawaitable
from typing import Any, Protocol

from phasebus.bus import CallbackSignatureError, Context, PhaseEvent
from phasebus.initializer.node.events import (
    CustomInitialization,
    PostDownload,
    PostEngineInit,
    PostInitialization,
    PostPlacementGroup,
    PreDownload,
    PreEngineInit,
    PreInitialization,
    PrePlacementGroup,
)
from phasebus.initializer.node.keys import ENGINE_ARGS, PLACEMENT_GROUP, RUNTIME_ENV, SKIP_DEFAULT
from phasebus.initializer.pipeline.errors import CallbackError

Callback = Callable[[Any, Context], Awaitable[Any]]


class Initialization(Protocol):
    """A class that does the whole initialization in place of the default one."""

    def initialize(self, llm_config: Any) -> Any:
        """Return a placement group, a runtime env and engine arguments: as attributes, a mapping or a triple.

        May be a coroutine function. None means no placement group, or no changes for the other two.
        """


def from_initialization(initialization: Initialization) -> Callback:
    """Return a callback that replaces the start-up by `initialization`.

    The runtime env and the engine arguments it returns are merged over those of the configuration.

    Raises:
        CallbackSignatureError: `initialization` is a class, or has no method ``initialize``. The callback raises
            CallbackError if ``initialize`` returns none of the three forms.
    """
    _check("initialization", initialization, _INITIALIZATION)
    name = type(initialization).__name__

    async def initialize(event: PreInitialization | CustomInitialization, context: Context) -> None:
        if isinstance(event, PreInitialization):
            context[SKIP_DEFAULT] = True
            return
        group, runtime_env, engine_args = _parts(await _value(initialization.initialize(event.config)), name)
        context[PLACEMENT_GROUP] = group
        context[RUNTIME_ENV] = _over(context[RUNTIME_ENV], runtime_env or {})
        context[ENGINE_ARGS] = {**context[ENGINE_ARGS], **(engine_args or {})}

    initialize.__name__ = name
    return initialize


def from_strategy(strategy: Any, hooks: Any = None) -> Callback:
    """Return a callback that calls a strategy before each step, and hooks before and after it.

    Args:
        strategy: May have methods ``download``, ``placement_group`` and ``engine_init``. They are called with the
            configuration and the context before the step; the mappings they return are merged into the context.
        hooks: May have methods ``before_X`` and ``after_X`` for the same steps and ``initialization``. They are called
            with the context.

    Raises:
        CallbackSignatureError: One of them is a class, has none of these methods, or has one with a similar name.
    """
    _check("strategy", strategy, _STRATEGY)
    if hooks is not None:
        _check("hooks", hooks, _HOOKS)
    name = type(strategy).__name__

    async def call_strategy(event: PhaseEvent, context: Context) -> None:
        if type(event) not in _MOMENTS:
            return
        when, step = _MOMENTS[type(event)]
        if when == "before" and step in _STRATEGY and (method := getattr(strategy, step, None)) is not None:
            wanted = await _value(method(event.config, context))
            if not isinstance(wanted, Mapping | None):
                raise CallbackError(
                    f"{step} of {name!r} returned {_described(wanted)}; "
                    "it returns a mapping, to be merged into the context, or None"
                )
            context.update(wanted or {})
        if (hook := getattr(hooks, f"{when}_{step}", None)) is not None:
            await _value(hook(context))

    call_strategy.__name__ = name
    return call_strategy


_MOMENTS: Mapping[type[PhaseEvent], tuple[str, str]] = {
    PreInitialization: ("before", "initialization"),
    PreDownload: ("before", "download"),
    PostDownload: ("after", "download"),
    PrePlacementGroup: ("before", "placement_group"),
    PostPlacementGroup: ("after", "placement_group"),
    PreEngineInit: ("before", "engine_init"),
    PostEngineInit: ("after", "engine_init"),
    PostInitialization: ("after", "initialization"),
}
_INITIALIZATION = ("initialize",)
_STRATEGY = ("download", "placement_group", "engine_init")
_HOOKS = tuple("_".join(moment) for moment in _MOMENTS.values())
_METHODS = (*_INITIALIZATION, *_STRATEGY, *_HOOKS)
_PARTS = ("placement_group", "runtime_env", "engine_args")

_ALIKE = 0.8
"""The minimum similarity, as measured by difflib, of a misspelled name: ``pre_download`` counts as a misspelled
``before_download``, but ``unload`` does not count as a misspelled ``download``."""


def _check(role: str, given: Any, names: Sequence[str]) -> None:
    """Check that `given` has a method of these `names`, and none with a similar name.

    Raises:
        CallbackSignatureError: It has none, has a similar one, or is a class.
    """
    if isinstance(given, type):
        name = given.__name__
        raise CallbackSignatureError(f"{name!r}, given as {role}, is a class; give an instance, {name}()")
    who = f"{type(given).__name__!r}, given as {role},"
    found = [name for name in dir(given) if not name.startswith("_") and callable(getattr_static(given, name))]
    for wrong in set(found).difference(_METHODS):
        for right in difflib.get_close_matches(wrong, names, n=1, cutoff=_ALIKE):
            if right not in found:
                raise CallbackSignatureError(
                    f"{who} has a method {wrong!r}, which nothing calls; did you mean {right!r}? "
                    f"(begin a similar name of your own with an underscore: {'_' + wrong!r})"
                )
    if not any(callable(getattr(given, name, None)) for name in names):
        which = f"no method {names[0]!r}" if len(names) == 1 else f"none of the methods {', '.join(names)}"
        raise CallbackSignatureError(f"{who} has {which}, so nothing of it would ever be called; add one")


def _parts(made: Any, by: str) -> tuple[Any, Mapping[str, Any] | None, Mapping[str, Any] | None]:
    """Return the placement group, the runtime env and the engine arguments that `by` returned, in any of the forms.

    Raises:
        CallbackError: The value has none of the forms, or a part has the wrong type.
    """
    if isinstance(made, Mapping):
        given = dict(made)
    else:
        given = {name: getattr(made, name) for name in _PARTS if hasattr(made, name)}
    if any(name in given for name in _PARTS):  # also a named tuple: its order may differ
        group, runtime_env, engine_args = (given.get(name) for name in _PARTS)
    elif isinstance(made, tuple | list) and len(made) == len(_PARTS):
        group, runtime_env, engine_args = made
    else:
        raise CallbackError(
            f"initialize of {by!r} returned {_described(made)}; it returns a placement group, a runtime env and engine "
            f"arguments: as three values in this order, or by the names {', '.join(_PARTS)}"
        )
    if isinstance(group, Mapping) or not all(isinstance(part, Mapping | None) for part in (runtime_env, engine_args)):
        raise CallbackError(
            f"initialize of {by!r} returned as placement group {_described(group)}, as runtime env "
            f"{_described(runtime_env)} and as engine arguments {_described(engine_args)}; the last two are mappings "
            "or None, and the first is not"
        )
    return group, runtime_env, engine_args


def _over(env: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `changes` merged over a runtime env, as Ray merges an actor's over its job's: variables one by one."""
    merged = {**env, **changes}
    if env.get("env_vars") and changes.get("env_vars"):
        merged["env_vars"] = {**env["env_vars"], **changes["env_vars"]}
    return merged


def _described(value: Any) -> str:
    """Return a description of the type of `value`, without its content, which may include secrets."""
    if value is None:
        return "None"
    if isinstance(value, Mapping):
        return f"a mapping with {', '.join(map(repr, value)) or 'nothing in it'}"
    if isinstance(value, tuple | list):
        return f"{len(value)} value{'' if len(value) == 1 else 's'}"
    return f"an object of the class {type(value).__name__!r}"


async def _value(returned: Any) -> Any:
    return await returned if isawaitable(returned) else returned
