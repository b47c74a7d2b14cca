"""Every private part of vLLM that phasebus uses, in one list, and which of them a vLLM has.

The list is checked against vLLM's source, which takes a second. Read from vLLM 0.33.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from phasebus.initializer.engines.vllm.inside import caches, hooks, ids, ranks
from phasebus.initializer.engines.vllm.inside.forkserver.kernels import KERNEL_SEARCH
from phasebus.initializer.engines.vllm.inside.forkserver.patches import (
    API_SERVERS,
    MODEL_INSPECTION,
    STARTING_PROCESSES,
)
from phasebus.initializer.engines.vllm.openai_server import APPLICATIONS, STATES, VALIDATORS
from phasebus.initializer.engines.vllm.server_arguments import PARSERS
from phasebus.initializer.seams import Seam, missing_from

SEAMS: Final[Sequence[Seam]] = (
    Seam("vllm.plugins", "load_general_plugins", "all notices: our plugin is not loaded"),
    Seam("vllm.tracing", "instrument", "the steps that vLLM has no span for"),
    Seam("vllm.tracing", "init_tracer", "the spans of the front end"),
    Seam(ids.VLLM_TRACING, "TracerProvider", "unique span ids where a process makes a second provider"),
    *(
        Seam(modules[0], path, "the server of `phasebus up`", modules[1:])
        for modules, path in (
            (PARSERS, "make_arg_parser"),
            (PARSERS, "validate_parsed_serve_args"),
            (APPLICATIONS, "build_app"),
            (STATES, "init_app_state"),
            (VALIDATORS, "validate_api_server_args"),
        )
    ),
    *(Seam(module, path, f"the step {step}") for module, path, step in hooks.UNTRACED_FUNCTIONS),
    Seam(*hooks.LOADER, "the size of the weights"),
    *(Seam(module, path, "returning free memory after the start") for module, path in hooks.LAST_STEPS),
    Seam(*hooks.CONFIGURATION, "the name that the model is served under"),
    Seam(*caches.MODEL_INSPECTION, "whether the model's class was inspected before"),
    Seam(*caches.COMPILED_MODEL, "whether the model was compiled before"),
    Seam(*caches.COMPILED_GRAPH, "whether a graph was compiled before"),
    Seam(*caches.INDUCTOR, "whether Inductor compiled a graph before"),
    *(Seam(module, path, "readiness of an engine without a server") for module, path in hooks.FRONT_ENDS),
    Seam(*hooks.STAT_LOGGERS, "the counts of iterations"),
    Seam("vllm.v1.metrics.loggers", "StatLoggerBase", "the counts of iterations"),
    *(Seam(module, path, "the ranks of processes") for module, path in ranks.TARGETS),
    *(Seam(module, "get_mp_context", "forking from a preloaded server") for module in STARTING_PROCESSES),
    Seam(*API_SERVERS, "forking API servers"),
    Seam(*MODEL_INSPECTION, "inspecting the model's class in a fork"),
    Seam(*KERNEL_SEARCH, "the memory that a worker without Triton shares with the other processes"),
)


def missing_seams(root: Path | None = None) -> list[Seam]:
    """Return the seams that a vLLM lacks.

    Args:
        root: The folder ``vllm`` of its source; None for the vLLM that is installed. Without one, all are missing.
    """
    return missing_from(SEAMS, "vllm", root)
