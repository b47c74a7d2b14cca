"""How long each step of a recorded start of vLLM compiled sources that have no bytecode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from phasebus.initializer.engines.vllm.inside.compile_times import (
    COMPILE_SECONDS,
    COMPILED_BYTES,
    IMPORTED_BYTES,
    SERVER_COMPILE_SECONDS,
)
from phasebus.initializer.engines.vllm.inside.processes import IMPORT_ENGINE, WAIT_FOR_FORK_SERVER
from phasebus.initializer.engines.vllm.inside.ranks import FRONT_END
from phasebus.telemetry.journal import RecordedStep, Run

_COMPILING_PER_IMPORT: Final = 1.8
"""How long compiling all its sources takes, as a multiple of the rest of an import: 10.8 s of 16.8 s for vLLM 0.32 (CPU time,
Python 3.11)."""


def compile_seconds(run: Run) -> Mapping[str, float]:
    """Return the seconds in which sources were compiled, by the id of the step that would be so much shorter without.

    They are measured from the time at which a process loads the plugin. Before that, its sources are counted, and the seconds
    follow from the share of those that were compiled. A wait for a fork server is shorter by what the server compiles more than the front end
    does meanwhile, which requests the process so much earlier.

    Args:
        run: The recorded start.
    """
    found: dict[str, float] = {}
    for step in run.steps:
        if seconds := _number(step, COMPILE_SECONDS) or _estimated(step, run):
            found[step.id] = seconds
    steps = {step.id: step for step in run.steps}
    for step in run.steps:
        start = steps.get(step.parent or "")
        by_server = 0.0 if start is None else _number(start, SERVER_COMPILE_SECONDS)
        if step.name == WAIT_FOR_FORK_SERVER and by_server:
            by_front_end = sum(found[each.id] for each in run.steps if each.id in found and _is_before(each, step))
            found[step.id] = max(0.0, by_server - by_front_end)
    return found


def _is_before(step: RecordedStep, wait: RecordedStep) -> bool:
    """Return whether the front end did `step` while the server imported: the server is its fork, or was started with it."""
    is_inherited = step.name == IMPORT_ENGINE
    return step.attributes.get("process") == FRONT_END and step.start_ns < wait.start_ns and not is_inherited


def _estimated(step: RecordedStep, run: Run) -> float:
    """Return the seconds in which a step compiled the sources that were counted when it ended."""
    total = _number(step, IMPORTED_BYTES)
    if not total:
        return 0.0
    compiling = _COMPILING_PER_IMPORT * min(1.0, _number(step, COMPILED_BYTES) / total)
    return step.seconds(run.end_ns) * compiling / (compiling + 1.0)


def _number(step: RecordedStep, name: str) -> float:
    value = step.attributes.get(name)
    return float(value) if isinstance(value, int | float) and value > 0 else 0.0
