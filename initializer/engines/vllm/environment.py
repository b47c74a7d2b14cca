"""What the environment of vLLM's processes says."""

from __future__ import annotations

from collections.abc import Mapping

from phasebus.initializer.engines.vllm.inside.variables import GATE_URL, STEPS_URL
from phasebus.telemetry import Telemetry


def environment_of_engine(telemetry: Telemetry) -> Mapping[str, str]:
    """Return what makes vLLM's processes tell of their steps."""
    return {**telemetry.relay.environment(), STEPS_URL: telemetry.relay.notices_url}


def environment_of_command(telemetry: Telemetry, step: str, *, gate: bool) -> Mapping[str, str]:
    """Return what makes a vLLM command tell of its steps, below the step with the id `step`.

    Args:
        telemetry: Where it tells.
        step: The step it is part of.
        gate: Whether it is to wait for its model once it has imported everything.
    """
    told = {"TRACEPARENT": telemetry.identity.traceparent(step), **environment_of_engine(telemetry)}
    return {**told, GATE_URL: telemetry.relay.gate_url} if gate else told
