"""How long each step of a recorded start of vLLM compiled sources that have no bytecode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from phasebus.initializer.engines.vllm.inside.compile_times import (
    COMPILE_SECONDS,
    COMPILED_BYTES,
    SERVER_COMPILE_SECONDS,
)
from phasebus.initializer.engines.vllm.inside.processes import IMPORT_ENGINE, WAIT_FOR_FORK_SERVER
from phasebus.initializer.engines.vllm.inside.ranks import FRONT_END
from phasebus.telemetry.journal import RecordedStep, Run

_SECONDS_PER_BYTE: Final = 0.25e-6
"""The rate where a start has measured none: that of vLLM's own sources on one CPU of an AMD EPYC with Python 3.11."""

_MEASURED_BYTES: Final = 200_000
"""From this size on, the sources whose compilation was measured give the rate of the others."""


def compile_seconds(run: Run) -> Mapping[str, float]:
    """Return the seconds in which sources were compiled, by the id of the step that would be so much shorter without.

    They are measured from the time at which a process loads the plugin. Before that, its sources are counted, and the rate of
    the measured ones holds for them. A wait for a fork server is shorter by what the server compiles more than the front end
    does meanwhile, which requests the process so much earlier.

    Args:
        run: The recorded start.
    """
    rate = _seconds_per_byte(run)
    found: dict[str, float] = {}
    for step in run.steps:
        seconds = _number(step, COMPILE_SECONDS) or rate * _number(step, COMPILED_BYTES)
        if seconds > 0:
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


def _seconds_per_byte(run: Run) -> float:
    measured = [step for step in run.steps if _number(step, COMPILE_SECONDS) and _number(step, COMPILED_BYTES)]
    seconds = sum(_number(step, COMPILE_SECONDS) for step in measured)
    size = sum(_number(step, COMPILED_BYTES) for step in measured)
    return seconds / size if size >= _MEASURED_BYTES else _SECONDS_PER_BYTE


def _number(step: RecordedStep, name: str) -> float:
    value = step.attributes.get(name)
    return float(value) if isinstance(value, int | float) and value > 0 else 0.0
