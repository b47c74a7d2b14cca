"""The imports that a process of vLLM begins after its plugins are loaded, each a step of its own. Read from vLLM 0.32.

`import_engine` ends with the first work of a process. What is imported later has no function of its own that could be traced.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Final

import wrapt
from opentelemetry import trace

IMPORT_MODULES: Final = "import_modules"
"""The name of the step; the module is an attribute."""

IMPORTED_LATER: Final = frozenset(
    {
        "ray",
        "vllm._aiter_ops",
        "vllm.model_executor.layers.quantization.online.base",
        "vllm.v1.core.sched.async_scheduler",
        "vllm.v1.engine.async_llm",
    }
)
"""The modules. One that a process has when its plugins are loaded has no step there."""

_ONLY_INSIDE: Final[Mapping[str, str]] = {
    "ray": "Executor init",
    "vllm._aiter_ops": "Executor init",
    "vllm.v1.core.sched.async_scheduler": "EngineCoreProc init",
}
"""The span of vLLM inside which the import of a module is a step. Other steps that import it have no steps inside, and would be
divided into this one and time without a name."""


def trace_imports() -> None:
    """Give the imports of `IMPORTED_LATER` a span each: when the module is there, with the time at which its import began."""
    times = _ImportTimes()
    sys.meta_path.insert(0, times)
    for module in IMPORTED_LATER:
        wrapt.register_post_import_hook(times.trace, module)


class _ImportTimes(MetaPathFinder):
    """Notes when the import of each module begins, and finds none."""

    def __init__(self) -> None:
        self._began_ns: dict[str, int] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in IMPORTED_LATER:
            self._began_ns[fullname] = time.time_ns()
        return None

    def trace(self, module: ModuleType) -> None:
        """Make the span of the import of `module`, if it has begun since this finder was installed."""
        if (began_ns := self._began_ns.pop(module.__name__, None)) is not None:
            running = getattr(trace.get_current_span(), "name", "")
            if _ONLY_INSIDE.get(module.__name__, running) != running:
                return
            from vllm.tracing import instrument_manual

            instrument_manual(IMPORT_MODULES, began_ns, time.time_ns(), {"module": module.__name__})
