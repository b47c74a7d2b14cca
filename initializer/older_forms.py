"""Two older ideas as callbacks: a class that does the whole initialization, and a strategy with hooks and a context."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from inspect import isawaitable
from typing import Any, Protocol

from phasebus.bus import Context, PhaseEvent
from phasebus.initializer.context import ENGINE_ARGS, PLACEMENT_GROUP, RUNTIME_ENV, SKIP_DEFAULT
from phasebus.initializer.phases import (
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

Callback = Callable[[Any, Context], Awaitable[Any]]


class Initialization(Protocol):
    """A class that does the whole initialization, in place of the default one."""

    async def initialize(self, llm_config: Any) -> Any:
        """Return a placement group, a runtime env and engine arguments: as attributes, a mapping or a triple."""


def from_initialization(initialization: Initialization) -> Callback:
    """Return a callback that has `initialization` take the start-up over, as it stands."""

    async def initialize(event: PreInitialization | CustomInitialization, context: Context) -> None:
        if isinstance(event, PreInitialization):
            context[SKIP_DEFAULT] = True
            return
        group, runtime_env, engine_args = _three(await initialization.initialize(event.config))
        context[PLACEMENT_GROUP] = group
        context[RUNTIME_ENV] = {**context[RUNTIME_ENV], **(runtime_env or {})}
        context[ENGINE_ARGS] = {**context[ENGINE_ARGS], **(engine_args or {})}

    initialize.__name__ = type(initialization).__name__
    return initialize


def from_strategy(strategy: Any, hooks: Any = None) -> Callback:
    """Return a callback that asks a strategy what each step is to do, and calls hooks before and after it.

    Args:
        strategy: May have methods ``download``, ``placement_group`` and ``engine_init``: called with the configuration
            and the context before the step; what they return is merged into the context.
        hooks: May have methods ``before_X`` and ``after_X`` for the same steps and ``initialization``: called with the
            context.
    """

    async def ask(event: PhaseEvent, context: Context) -> None:
        if type(event) not in _MOMENTS:
            return
        when, step = _MOMENTS[type(event)]
        if when == "before" and (method := getattr(strategy, step, None)) is not None:
            context.update(await _value(method(event.config, context)) or {})
        if (hook := getattr(hooks, f"{when}_{step}", None)) is not None:
            await _value(hook(context))

    ask.__name__ = type(strategy).__name__
    return ask


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


def _three(made: Any) -> tuple[Any, Any, Any]:
    if isinstance(made, tuple | list):
        group, runtime_env, engine_args = made
        return group, runtime_env, engine_args
    names = ("placement_group", "runtime_env", "engine_args")
    if isinstance(made, Mapping):
        return tuple(made.get(name) for name in names)  # type: ignore[return-value]
    return tuple(getattr(made, name, None) for name in names)  # type: ignore[return-value]


async def _value(returned: Any) -> Any:
    return await returned if isawaitable(returned) else returned
