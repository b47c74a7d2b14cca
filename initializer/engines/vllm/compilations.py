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
    follow from the share of those that were compiled. A wait for a fork server is shorter by what the server compiles more than
    the front end does meanwhile, which requests the process so much earlier.

    Args:
        run: The recorded start.
    """
    found: dict[str, float] = {}
    for step in run.steps:
        if seconds := _number(step, COMPILE_SECONDS) or _estimated(step, run):
            found[step.id] = seconds
    return found | _waits(run, found)


def _waits(run: Run, found: Mapping[str, float]) -> dict[str, float]:
    """Return the seconds by which each wait for a fork server would be shorter, by its id, in the order of the requests."""
    steps = {step.id: step for step in run.steps}
    shorter: dict[str, float] = {}
    server_before, since_ns = 0.0, 0
    for step in run.steps:  # by their start
        start = steps.get(step.parent or "")
        by_server = 0.0 if start is None else _number(start, SERVER_COMPILE_SECONDS)
        if step.name != WAIT_FOR_FORK_SERVER or not by_server:
            continue
        by_front_end = sum(
            found[each.id]
            for each in run.steps
            # not what it had imported before: the server is its fork, or was started with it
            if each.id in found
            and since_ns <= each.start_ns < step.start_ns
            and each.name != IMPORT_ENGINE
            and each.attributes.get("process") == FRONT_END
        )
        shorter[step.id] = max(0.0, by_server - server_before - by_front_end)
        server_before, since_ns = max(server_before, by_server), step.start_ns
    return shorter


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
