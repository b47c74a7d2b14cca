"""The names of the steps of vLLM's start, by its spans. Read from vLLM 0.32 (`@instrument` in its sources)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

OTHER: Final = "other"
"""The name of a step whose span is not in the table; the span's own name is an attribute."""

STEP_OF_SPAN: Final[Mapping[str, str]] = {
    "Overall Loading": "start_engine_core",
    "SyncMPClient init": "start_engine_core",
    "AsyncMPClient init": "connect_engine_core",
    "EngineCoreProc init": "init_engine_core",
    "Executor init": "init_executor",
    "Init device": "init_device",
    "Loading (CPU)": "load_model",
    "Loading (GPU)": "load_model",
    "Load model": "run_loader",
    "Initialize model": "initialize_model",
    "Load weights": "load_weights",
    "Download weights - HF": "download_weights",
    "Prepare model": "prepare_model",
    "Warmup (CPU)": "warm_up_model",
    "Warmup (GPU)": "warm_up",
    "DeepGemm warmup": "warm_up_kernels",
    "MiniMax M3 MSA warmup": "warm_up_kernels",
    "CuTeDSL warmup": "warm_up_kernels",
    "Compile graph": "compile_graph",
    "Inductor compilation": "compile_inductor",
    "Capture model": "capture_graphs",
    "Allocate KV cache": "allocate_kv_cache",
    "API server setup": "set_up_api_server",
}
"""By the name of the span."""

STEP_OF_FUNCTION: Final[Mapping[str, str]] = {
    "WorkerProc.__init__": "init_worker",
    "WorkerWrapperBase.init_worker": "create_worker",
}
"""By the function, where two different spans have one name (`Worker init`)."""

OWN_STEPS: Final = frozenset(
    {
        "build_api_server",
        "check_api_server",
        "collect_garbage",
        "configure_engine",
        "freeze_heap",
        "import_engine",
        "import_modules",
        "import_server",
        "init_api_server",
        "init_device",
        "init_front_end",
        "init_scheduler",
        "init_structured_output",
        "load_http_server",
        "load_stat_loggers",
        "load_tokenizer",
        "parse_command_line",
        "process_weights",
        "profile_memory",
        "register_config",
        "start_http_server",
        "start_process",
        "wait_for_engine_core",
        "wait_for_fork_server",
        "wait_for_model",
        "warm_up",
    }
)
"""Steps that vLLM has no span for; our plugin makes one with this name."""


ALL_STEPS: Final = tuple(sorted({*STEP_OF_SPAN.values(), *STEP_OF_FUNCTION.values(), *OWN_STEPS}))
"""Every step that a start of vLLM can have, `OTHER` excepted."""


def step_name(span: str, function: object = None) -> str:
    """Return the name of the step that a span stands for, by the span's name and function."""
    if span in OWN_STEPS:
        return span
    return STEP_OF_FUNCTION.get(str(function)) or STEP_OF_SPAN.get(span, OTHER)
