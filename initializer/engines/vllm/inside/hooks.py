"""The private seams of vLLM's start-up: functions that take seconds and have no span of vLLM's. Read from vLLM 0.32.

Each gets a span with the name of its step. A function that a version does not have is left out.
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

from phasebus.allocator import return_free_memory
from phasebus.initializer.engines.vllm.inside.caches import report_caches
from phasebus.initializer.engines.vllm.inside.forkserver.begin import release_server
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
    ("vllm.entrypoints.openai.api_server", "build_app", "build_api_server"),  # before vLLM 0.29
    ("vllm.entrypoints.openai.api_server", "init_app_state", "init_api_server"),
    ("vllm.v1.engine.async_llm", "maybe_register_config_serialize_by_value", "register_config"),
    ("vllm.v1.engine.utils", "wait_for_engine_startup", "wait_for_engine_core"),
    ("vllm.v1.core.sched.scheduler", "Scheduler.__init__", "init_scheduler"),
    ("vllm.v1.structured_output", "StructuredOutputManager.__init__", "init_structured_output"),
    ("vllm.v1.engine.core", "freeze_gc_heap", "freeze_heap"),
    ("vllm.model_executor.model_loader.base_loader", "process_weights_after_loading", "process_weights"),
    ("uvicorn.config", "Config.load", "load_http_server"),  # imports the protocols
    ("uvicorn.server", "Server.startup", "start_http_server"),
    ("vllm.v1.worker.cpu_worker", "CPUWorker.init_device", "init_device"),
    ("vllm.v1.worker.cpu_worker", "CPUWorker.determine_available_memory", "profile_memory"),
    ("vllm.v1.worker.cpu_worker", "CPUWorker.compile_or_warm_up_model", "warm_up"),
    ("vllm.v1.worker.gpu_worker", "Worker.determine_available_memory", "profile_memory"),
)
"""Module, function, and the name of the step."""

LOADER: Final = ("vllm.model_executor.model_loader.default_loader", "DefaultModelLoader.load_weights")
"""The function that loads the weights, into a model that has their sizes already."""

COLLECTION: Final = ("gc", "collect")
"""Collecting garbage takes up to a second in a process that has imported vLLM, and vLLM does it several times."""

LAST_STEPS: Final = (
    ("vllm.v1.engine.core", "freeze_gc_heap"),
    ("vllm.v1.worker.gpu_worker", "Worker.compile_or_warm_up_model"),
    ("vllm.v1.worker.cpu_worker", "CPUWorker.compile_or_warm_up_model"),
    ("vllm.entrypoints.launchers.utils.server_utils", "freeze_gc_heap"),
)
"""What an engine core, a worker and an API server each call last in their starts."""

CONFIGURATION: Final = ("vllm.engine.arg_utils", "EngineArgs.create_engine_config")
"""The function that makes the configuration, which has the name that the model is served under."""

FRONT_ENDS: Final = (
    ("vllm.v1.engine.async_llm", "AsyncLLM.__init__"),
    ("vllm.v1.engine.llm_engine", "LLMEngine.__init__"),
)
"""The functions that make an engine; it answers when they return."""

STAT_LOGGERS: Final = ("vllm.v1.engine.async_llm", "load_stat_logger_plugin_factories")
"""The function that finds the stat loggers of plugins. An entry point of ours would be found by every vLLM, and would
switch its statistics on."""

READY: Final = "f" * 16
"""The step id of the notice that the engine as a whole is ready."""

_SERVERS: Final = frozenset(("vllm.entrypoints.launchers.api_server.entry", "vllm.entrypoints.openai.api_server"))
"""The modules that serve HTTP: since vLLM 0.29, and before."""

_serves: bool | None = None


def instrument_functions() -> None:
    """Give every function in `UNTRACED_FUNCTIONS` a span, in the modules that are imported and in those that will be."""
    from vllm.tracing import instrument

    # before the others: it sets an attribute on the span that the function gets below, and memory is returned inside one
    _replace_when_imported(*CONFIGURATION, _with_model)
    for module, path in LAST_STEPS:
        _replace_when_imported(module, path, _and_return_memory)
    for module, path, step in UNTRACED_FUNCTIONS:
        _replace_when_imported(module, path, instrument(span_name=step))
    _replace_when_imported(*LOADER, _with_size)
    _replace_when_imported(*COLLECTION, _inside_steps)
    report_caches(_replace_when_imported)


def report_readiness(reporter: Reporter, end: Callable[[], None]) -> None:
    """Report when the engine answers: a server when it listens, any other program when its engine is made.

    Args:
        reporter: Sends the report.
        end: Ends what measures this process only until then.
    """

    def report_when_made(init: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(init)
        def make(self: Any, *args: Any, **kwargs: Any) -> None:
            init(self, *args, **kwargs)
            if not _is_server():
                reporter.send(_ready())
                release_server()
                end()

        return make

    def report_when_listening(startup: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(startup)
        async def listen(self: Any, *args: Any, **kwargs: Any) -> None:
            await startup(self, *args, **kwargs)
            reporter.send(_ready())
            release_server()
            end()

        return listen

    for module, path in FRONT_ENDS:
        _replace_when_imported(module, path, report_when_made)
    _replace_when_imported("uvicorn.server", "Server.startup", report_when_listening)


def install_iteration_counter(reporter: Reporter) -> None:
    """Make the front end count its engine's iterations while it serves.

    Not one of several API servers: vLLM hands the statistics of an iteration to any one of them, so none has them all.
    """
    if this_process().serves:
        return

    from vllm.tracing import instrument

    def add_counter(find_factories: Callable[[], list[Any]]) -> Any:
        @functools.wraps(find_factories)
        def find_and_add() -> list[Any]:
            from phasebus.initializer.engines.vllm.inside.iterations import logger_class

            return [*find_factories(), logger_class(reporter, served=_is_server())]

        return instrument(find_and_add, span_name="load_stat_loggers")

    _replace_when_imported(*STAT_LOGGERS, add_counter)


def _ready() -> dict[str, object]:
    return {
        "event": "ready",
        "step": READY,
        "name": "ready",
        "time_ns": time.time_ns(),
        "pid": os.getpid(),
        "process": this_process().name,
    }


def set_serving(serves: bool) -> None:
    """Note whether this process serves HTTP: a fork of a server that stays has the modules for it in any case."""
    global _serves  # noqa: PLW0603  # it is a fact about the process
    _serves = serves


def _is_server() -> bool:
    if _serves is not None:
        return _serves
    main = getattr(sys.modules.get("__main__"), "__spec__", None)
    return not _SERVERS.isdisjoint(sys.modules) or (main is not None and main.name in _SERVERS)


def resolved(module: ModuleType, path: str) -> tuple[Any, str, Any] | None:
    """Return the owner, the name and the value of the attribute at `path` in `module`; None if it does not exist."""
    owner: Any = module
    *parts, name = path.split(".")
    for part in parts:
        owner = getattr(owner, part, None)
    value = vars(owner).get(name) if owner is not None else None
    return None if value is None else (owner, name, value)


def _replace_when_imported(module: str, path: str, wrap: Callable[[Any], Any]) -> None:
    wrapt.register_post_import_hook(functools.partial(_replace, path, wrap), module)


def _replace(path: str, wrap: Callable[[Any], Any], module: ModuleType) -> None:
    if (found := resolved(module, path)) is not None:
        owner, name, value = found
        setattr(owner, name, wrap(value))


def _with_size(load_weights: Callable[..., Any]) -> Callable[..., Any]:
    """Put the number of bytes that are loaded on the span of `load_weights`."""

    @functools.wraps(load_weights)
    def sized(self: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
        size = sum(tensor.numel() * tensor.element_size() for tensor in model.parameters())
        token = initial_attributes.set({"bytes": size})
        try:
            return load_weights(self, model, *args, **kwargs)
        finally:
            initial_attributes.reset(token)

    return sized


def _and_return_memory(call: Callable[..., Any]) -> Callable[..., Any]:
    """Return free memory to the system after `call`: a start frees what it has compiled and loaded."""

    @functools.wraps(call)
    def call_and_return(*args: Any, **kwargs: Any) -> Any:
        result = call(*args, **kwargs)
        return_free_memory()
        return result

    return call_and_return


def _inside_steps(collect: Callable[..., int]) -> Callable[..., int]:
    """Give a collection of garbage a span, if it happens inside one: later ones are none of the start's."""
    from vllm.tracing import instrument

    @functools.wraps(collect)
    def collect_garbage(*args: Any, **kwargs: Any) -> int:
        return collect(*args, **kwargs)

    traced = instrument(collect_garbage, span_name="collect_garbage")

    @functools.wraps(collect)
    def collect_inside(*args: Any, **kwargs: Any) -> int:
        inside = trace.get_current_span().is_recording()
        return int((traced if inside else collect)(*args, **kwargs))

    return collect_inside


def _with_model(create: Callable[..., Any]) -> Callable[..., Any]:
    """Put the name that the model is served under, the label `model_name` of vLLM's metrics, on the span of `create`."""

    @functools.wraps(create)
    def create_and_name(self: Any, *args: Any, **kwargs: Any) -> Any:
        configuration = create(self, *args, **kwargs)
        with contextlib.suppress(Exception):  # the engine starts whatever a version lacks
            trace.get_current_span().set_attribute("model", str(configuration.model_config.served_model_name))
        return configuration

    return create_and_name
