"""Where vLLM's start-up is dark: functions that take seconds and have no span of vLLM's. Read from vLLM 0.32.

Each gets a span whose name is the step's. One that a version does not have is left out.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

import wrapt
from opentelemetry import trace

from phasebus.initializer.engines.vllm.inside.ranks import this_process
from phasebus.initializer.engines.vllm.inside.reporter import Reporter
from phasebus.initializer.engines.vllm.inside.spans import initial_attributes

UNTRACED_FUNCTIONS: Final = (
    ("vllm.engine.arg_utils", "EngineArgs.create_engine_config", "configure_engine"),
    ("vllm.v1.engine.async_llm", "AsyncLLM.__init__", "init_front_end"),
    ("vllm.v1.engine.async_llm", "renderer_from_config", "load_tokenizer"),
    ("vllm.v1.engine.llm_engine", "LLMEngine.__init__", "init_front_end"),
    ("vllm.v1.engine.llm_engine", "renderer_from_config", "load_tokenizer"),
    ("vllm.entrypoints.launchers.api_server.entry", "build_app", "build_api_server"),
    ("vllm.entrypoints.launchers.api_server.entry", "init_app_state", "init_api_server"),
    ("vllm.v1.worker.cpu_worker", "CPUWorker.init_device", "init_device"),
    ("vllm.v1.worker.cpu_worker", "CPUWorker.determine_available_memory", "profile_memory"),
    ("vllm.v1.worker.cpu_worker", "CPUWorker.compile_or_warm_up_model", "warm_up"),
    ("vllm.v1.worker.gpu_worker", "Worker.determine_available_memory", "profile_memory"),
)
"""Module, function, and the name of the step."""

LOADER: Final = ("vllm.model_executor.model_loader.default_loader", "DefaultModelLoader.load_weights")
"""What loads the weights, into a model that has their sizes already."""


CONFIGURATION: Final = ("vllm.engine.arg_utils", "EngineArgs.create_engine_config")
"""What makes the configuration, which has the name that the model is served under."""


STAT_LOGGERS: Final = ("vllm.v1.engine.async_llm", "load_stat_logger_plugin_factories")
"""What finds the stat loggers that plugins bring. An entry point of ours would be found in every vLLM, and would switch
its statistics on."""

READY: Final = "f" * 16
"""Stands in the place of a step's id when the engine as a whole is ready."""

_SERVER: Final = "vllm.entrypoints.launchers.api_server.entry"


def instrument_functions() -> None:
    """Give every dark function a span, in the modules that are imported and in those that will be."""
    from vllm.tracing import instrument

    # before the others: it sets an attribute on the span that the function gets below
    wrapt.register_post_import_hook(functools.partial(_replace, CONFIGURATION[1], _with_model), CONFIGURATION[0])
    for module, path, step in UNTRACED_FUNCTIONS:
        wrapt.register_post_import_hook(functools.partial(_replace, path, instrument(span_name=step)), module)
    wrapt.register_post_import_hook(functools.partial(_replace, LOADER[1], _with_size), LOADER[0])


def report_readiness(reporter: Reporter) -> None:
    """Tell when the engine answers: a server when it listens, any other program when its engine is made."""

    def engine_made(init: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(init)
        def telling(self: Any, *args: Any, **kwargs: Any) -> None:
            init(self, *args, **kwargs)
            if _SERVER not in sys.modules:
                reporter.send(_ready())

        return telling

    def listening(startup: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(startup)
        async def telling(self: Any, *args: Any, **kwargs: Any) -> None:
            await startup(self, *args, **kwargs)
            reporter.send(_ready())

        return telling

    for module in ("vllm.v1.engine.async_llm", "vllm.v1.engine.llm_engine"):
        path = "AsyncLLM.__init__" if module.endswith("async_llm") else "LLMEngine.__init__"
        wrapt.register_post_import_hook(functools.partial(_replace, path, engine_made), module)
    wrapt.register_post_import_hook(functools.partial(_replace, "Server.startup", listening), "uvicorn.server")


def install_iteration_counter(reporter: Reporter) -> None:
    """Have the front end count what its engine does while it serves."""

    def with_ours(factories: Callable[[], list[Any]]) -> Callable[[], list[Any]]:
        @functools.wraps(factories)
        def extended() -> list[Any]:
            from phasebus.initializer.engines.vllm.inside.iterations import logger_class

            return [*factories(), logger_class(reporter, served=_SERVER in sys.modules)]

        return extended

    module, path = STAT_LOGGERS
    wrapt.register_post_import_hook(functools.partial(_replace, path, with_ours), module)


def _ready() -> dict[str, object]:
    return {
        "event": "ready",
        "step": READY,
        "name": "ready",
        "time_ns": time.time_ns(),
        "pid": os.getpid(),
        "process": this_process().name,
    }


def resolved(module: ModuleType, path: str) -> tuple[Any, str, Any] | None:
    """Return the owner, the name and the value of what `path` names in `module`; None if there is no such thing."""
    owner: Any = module
    *parts, name = path.split(".")
    for part in parts:
        owner = getattr(owner, part, None)
    value = vars(owner).get(name) if owner is not None else None
    return None if value is None else (owner, name, value)


def _replace(path: str, wrap: Callable[[Any], Any], module: ModuleType) -> None:
    if (found := resolved(module, path)) is not None:
        owner, name, value = found
        setattr(owner, name, wrap(value))


def _with_size(load_weights: Callable[..., Any]) -> Callable[..., Any]:
    """Have the span of `load_weights` carry how many bytes are loaded."""

    @functools.wraps(load_weights)
    def sized(self: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
        size = sum(tensor.numel() * tensor.element_size() for tensor in model.parameters())
        token = initial_attributes.set({"bytes": size})
        try:
            return load_weights(self, model, *args, **kwargs)
        finally:
            initial_attributes.reset(token)

    return sized


def _with_model(create: Callable[..., Any]) -> Callable[..., Any]:
    """Put the name that the model is served under, the label `model_name` of vLLM's metrics, on the span of `create`."""

    @functools.wraps(create)
    def create_and_name(self: Any, *args: Any, **kwargs: Any) -> Any:
        configuration = create(self, *args, **kwargs)
        with contextlib.suppress(Exception):  # whatever a version lacks, the engine has its configuration
            trace.get_current_span().set_attribute("model", str(configuration.model_config.served_model_name))
        return configuration

    return create_and_name
