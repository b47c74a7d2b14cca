"""vLLM's span names, and what we call the steps they tell of. Read from vLLM 0.32 (`vllm/tracing`, `@instrument`)."""

from __future__ import annotations

import time
from typing import Any, Final

from phasebus.bus import StepEvent
from phasebus.initializer.engines.protocol import EngineError
from phasebus.initializer.phases import ENGINE_STEP, EngineStepFailed, EngineStepFinished, EngineStepStarted
from phasebus.telemetry import EngineSpan

STEP_OF_SPAN: Final = {
    "AsyncMPClient init": "start_engine_core",
    "SyncMPClient init": "start_engine_core",
    "EngineCoreProc init": "engine_core_init",
    "Executor init": "executor_init",
    "Worker init": "worker_init",
    "Init device": "device_init",
    "Overall Loading": "load_model",
    "Loading (CPU)": "load_model",
    "Loading (GPU)": "load_model",
    "Load model": "load_model",
    "Initialize model": "initialize_model",
    "Load weights": "load_weights",
    "Download weights - HF": "download_weights",
    "Prepare model": "prepare_model",
    "Warmup (CPU)": "warm_up",
    "Warmup (GPU)": "warm_up",
    "DeepGemm warmup": "warm_up",
    "Compile graph": "compile",
    "Inductor compilation": "compile",
    "Capture model": "capture_graphs",
    "Allocate KV cache": "allocate_kv_cache",
    "API server setup": "api_server_setup",
}


def events_of(span: EngineSpan) -> tuple[StepEvent, StepEvent]:
    """Return the two events, begin and end, that tell of a span as a step; its ids are the span's own.

    A span of a name that is not in the table becomes a step called ``other``; its own name is an attribute.
    """
    to_monotonic = time.monotonic_ns() - time.time_ns()
    process = span.resource.get("vllm.process_name") or span.resource.get("vllm.process_kind") or "front_end"
    attributes = {"span": span.name, "process": process}
    if (pid := span.resource.get("vllm.process_id")) is not None:
        attributes["pid"] = pid
    step: dict[str, Any] = {
        "step": span.span,
        "parent": span.parent,
        "kind": ENGINE_STEP.name,
        "name": STEP_OF_SPAN.get(span.name, "other"),
        "attributes": attributes,
        "traced": True,
    }
    begin = EngineStepStarted(**step, time_ns=span.start_ns, monotonic_ns=span.start_ns + to_monotonic)
    step |= {"time_ns": span.end_ns, "monotonic_ns": span.end_ns + to_monotonic, "seconds": span.seconds}
    if span.error is not None:
        return begin, EngineStepFailed(**step, outcome="failed", error=EngineError(span.error))
    return begin, EngineStepFinished(**step)
