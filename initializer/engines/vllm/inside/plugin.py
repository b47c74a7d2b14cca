"""The plugin, once `phasebus.vllm_plugin` has found that this process was started under phasebus."""

from __future__ import annotations

import os
import time
from typing import Final

from phasebus.initializer.engines.vllm.inside import gates, hooks, imports, processes, ranks, spans
from phasebus.initializer.engines.vllm.inside.compile_times import after_compilation
from phasebus.initializer.engines.vllm.inside.forkserver.patches import use_fork_server
from phasebus.initializer.engines.vllm.inside.reporter import Reporter
from phasebus.initializer.engines.vllm.inside.variables import GATE_URL, RELAY_TOKEN
from phasebus.initializer.ray.exit_codes import keep_exit_codes
from phasebus.stack_dump import offer_stacks

PARSE_COMMAND_LINE: Final = "parse_command_line"
"""The name of the step from the plugin to the first work of a command: a parser for each of vLLM's commands is made."""


def start(url: str) -> None:
    """Report the steps of this process to `url`, and wait for the model if there is a gate."""
    offer_stacks()
    token = os.environ.get(RELAY_TOKEN, "")
    reporter = Reporter(url, token)
    gate = os.environ.pop(GATE_URL, None)  # polled once, and not by the processes that this one starts
    processor = spans.report_spans(reporter)
    keep_exit_codes()
    processes.report_child_processes(reporter)
    hooks.instrument_functions()
    imports.trace_imports()
    hooks.report_readiness(reporter, after_compilation(processor.add_compilation))
    hooks.install_iteration_counter(reporter)
    use_fork_server()
    if ranks.ray_worker() is None:  # Ray started that process long before, for any work
        started_ns = spans.current_span_start_ns() or time.time_ns()
        processes.report_process_start(reporter, ranks.this_process(), started_ns)
    if gate is not None:
        gates.wait_at(gate, token)
    from phasebus.vllm_plugin import is_command_of_vllm

    if ranks.this_process().name == ranks.FRONT_END and is_command_of_vllm():
        processor.begin_until_next(PARSE_COMMAND_LINE)
