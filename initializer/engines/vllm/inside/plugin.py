"""The entry point that vLLM loads in its front end, its engine core and every worker (`vllm.general_plugins`)."""

from __future__ import annotations

import logging
import os
import sys
import time

STEPS_URL = "PHASEBUS_STEPS_URL"
"""The variable that says where notices of steps go; without it the plugin does nothing."""

GATE_URL = "PHASEBUS_GATE_URL"
"""The variable that says where the front end asks whether its model is there; without it, it is taken to be."""

_INSPECTION = "vllm.model_executor.models.registry"


def register() -> None:
    """Begin to tell of this process's steps, if it was started under phasebus. Never raises: the engine comes first."""
    url = os.environ.get(STEPS_URL)
    main = getattr(sys.modules.get("__main__"), "__spec__", None)
    if not url or (main is not None and main.name == _INSPECTION):  # that one only looks at a model's class, and ends
        return
    try:
        _begin(url)
    except Exception:
        logging.getLogger("phasebus.engine").exception("the steps of this process will not be told")


def _begin(url: str) -> None:
    from phasebus.initializer.engines.vllm.inside import forkserver, gates, hooks, processes, ranks, spans
    from phasebus.initializer.engines.vllm.inside.reporter import Reporter
    from phasebus.initializer.ray.exit_codes import keep_exit_codes

    reporter = Reporter(url)
    gate = os.environ.pop(GATE_URL, None)  # asked once, and not by the processes this one starts
    spans.report_spans(reporter)
    if ranks.ray_worker() is None:  # Ray started that process long before, for any work
        started_ns = spans.current_span_start_ns() or time.time_ns()
        processes.report_process_start(reporter, ranks.this_process(), started_ns)
    keep_exit_codes()
    processes.report_child_processes(reporter)
    hooks.instrument_functions()
    hooks.report_readiness(reporter)
    hooks.install_iteration_counter(reporter)
    forkserver.adopt()
    if gate is not None:
        gates.wait_at(gate)
