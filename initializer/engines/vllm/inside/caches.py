"""Whether vLLM found what it keeps between starts: the inspection of the model's class, compiled graphs, and kernels.

Each use of a cache is recorded as attributes of the span in which it happens: ``cache.NAME`` is ``hit`` or ``miss``, and each
``cache.NAME.factor.FACTOR`` is a part of the cache's key, so that two starts show what has changed. Read from vLLM 0.32.
"""

from __future__ import annotations

import functools
import hashlib
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import wrapt
from opentelemetry import trace

MODEL_INSPECTION: Final = ("vllm.model_executor.models.registry", "_LazyRegisteredModel._load_modelinfo_from_cache")
"""The function that looks the model's class up, by the hash of its source."""

COMPILED_MODEL: Final = ("vllm.compilation.decorators", "_try_load_aot_compiled_fn")
"""The function that loads a whole model compiled ahead of time; None if there is none with this key."""

COMPILED_GRAPH: Final = ("vllm.compilation.backends", "CompilerManager.load")
"""The function that loads one compiled graph; None if there is none with this key."""

INDUCTOR: Final = ("torch._inductor.compile_fx", "compile_fx")
"""The function in which torch's Inductor compiles a graph, or finds it in its own cache. Read from torch 2.13."""

_TRITON_KNOBS: Final = "triton.knobs"
_MAX_FACTORS: Final = 40
_MAX_VARIABLE_CHARACTERS: Final = 100
_DIGEST_CHARACTERS: Final = 10
_state = threading.local()


def report_caches(replace: Callable[[str, str, Callable[[Any], Any]], None]) -> None:
    """Record each use of a cache in this process, now and in modules that are imported later.

    Args:
        replace: Replaces the function at a path in a module by what the third argument makes of it.
    """
    replace(*MODEL_INSPECTION, _inspecting)
    replace(*COMPILED_MODEL, _loading_model)
    replace(*COMPILED_GRAPH, _loading_graph)
    replace(*INDUCTOR, _compiling)
    wrapt.register_post_import_hook(_listen_to_triton, _TRITON_KNOBS)


def record_use(
    cache: str, *, hit: bool, factors: Mapping[str, object] | None = None, present: bool | None = None
) -> None:
    """Record a use of a cache on the current span; several uses in one span are a miss if one of them is.

    Args:
        cache: The name of the cache.
        hit: Whether it had what was looked up.
        factors: The parts of its key.
        present: Of a miss, whether its file was there and could not be used; None if unknown.
    """
    span = trace.get_current_span()
    if not span.is_recording():
        return
    name, before = f"cache.{cache}", getattr(span, "attributes", None) or {}
    outcome = "hit" if hit else "miss"
    count = f"{name}.{'hits' if hit else 'misses'}"
    span.set_attribute(name, "miss" if before.get(name) == "miss" else outcome)
    span.set_attribute(count, int(before.get(count, 0)) + 1)
    if present is not None and not hit:
        span.set_attribute(f"{name}.present", present)
    for factor, value in list((factors or {}).items())[:_MAX_FACTORS]:
        span.set_attribute(f"{name}.factor.{factor}", str(value))


def _inspecting(load: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(load)
    def load_model_info(self: Any, module_hash: str, *args: Any, **kwargs: Any) -> Any:
        found = load(self, module_hash, *args, **kwargs)
        with suppress(Exception):
            factors = {"model_code": module_hash[:_DIGEST_CHARACTERS], "folder": str(self._get_cache_dir())}
            present = (self._get_cache_dir() / self._get_cache_filename()).exists()
            record_use("model_inspection", hit=found is not None, factors=factors, present=present)
        return found

    return load_model_info


def _loading_model(load: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(load)
    def load_compiled_model(model: Any, path: str, *args: Any, **kwargs: Any) -> Any:
        found = load(model, path, *args, **kwargs)
        with suppress(Exception):
            factors = compile_factors(model.vllm_config)
            record_use("compiled_model", hit=found is not None, factors=factors, present=Path(path).exists())
        return found

    return load_compiled_model


def _loading_graph(load: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(load)
    def load_compiled_graph(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = load(self, *args, **kwargs)
        with suppress(Exception):
            record_use("compiled_graph", hit=found is not None)
        return found

    return load_compiled_graph


def _compiling(compile_graph: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(compile_graph)
    def compile_and_count(*args: Any, **kwargs: Any) -> Any:
        if getattr(_state, "compiling", False):  # it calls itself
            return compile_graph(*args, **kwargs)
        before, _state.compiling = _inductor_counts(), True
        try:
            return compile_graph(*args, **kwargs)
        finally:
            _state.compiling = False
            with suppress(Exception):
                hits, misses = (now - then for now, then in zip(_inductor_counts(), before, strict=True))
                if hits or misses:
                    record_use("inductor", hit=not misses)

    return compile_and_count


def _inductor_counts() -> tuple[int, int]:
    """Return how many graphs Inductor has found in its cache in this process, and how many not."""
    try:
        from torch._dynamo.utils import counters  # imported by what is wrapped
    except ImportError:
        return 0, 0
    found = counters["inductor"]
    return int(found["fxgraph_cache_hit"]), int(found["fxgraph_cache_miss"])


def _listen_to_triton(knobs: ModuleType) -> None:
    """Record whether Triton found each kernel, unless something else listens (`triton.knobs`, Triton 3.4 and later)."""
    compilation = getattr(knobs, "compilation", None)
    if compilation is not None and getattr(compilation, "listener", compilation) is None:

        def listen(*_: object, cache_hit: bool = False, **__: object) -> None:
            with suppress(Exception):
                record_use("kernels", hit=cache_hit)

        with suppress(Exception):
            compilation.listener = listen


def compile_factors(config: Any) -> dict[str, str]:
    """Return the parts of the key of compiled models: versions, the variables that are set, and each part of the config.

    Args:
        config: A `VllmConfig`, whose hash is one of those of its parts.
    """
    import torch
    import vllm
    from vllm import envs

    factors = {"version.vllm": str(vllm.__version__), "version.torch": str(torch.__version__)}
    for name in sorted(vars(config)):
        part = getattr(config, name)
        if hasattr(part, "compute_hash"):
            with suppress(Exception):
                factors[name] = str(part.compute_hash())[:_DIGEST_CHARACTERS]
    counted: dict[str, object] = getattr(envs, "compile_factors", dict)()
    for name in sorted(counted.keys() & os.environ.keys()):
        factors[f"env.{name}"] = _short(os.environ[name])
    unset = {name: value for name, value in counted.items() if name not in os.environ}
    factors["env"] = _digest(sorted((name, str(value)) for name, value in unset.items()))
    return factors


def _short(text: str) -> str:
    return text if len(text) <= _MAX_VARIABLE_CHARACTERS else _digest(text)


def _digest(value: object) -> str:
    return hashlib.sha256(str(value).encode("utf-8", "backslashreplace")).hexdigest()[:_DIGEST_CHARACTERS]
