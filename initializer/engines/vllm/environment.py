"""The environment of vLLM's processes: where they report to."""

from __future__ import annotations

import os
from collections.abc import Mapping

from phasebus.initializer.engines.vllm.inside.variables import GATE_URL, RELAY_TOKEN, STEPS_URL
from phasebus.initializer.engines.vllm.iteration_metrics import watch_iterations
from phasebus.telemetry import Telemetry


def environment_of_engine(telemetry: Telemetry, environment: Mapping[str, str] = os.environ) -> Mapping[str, str]:
    """Return what makes vLLM's processes report their steps; from now on their iterations are counted.

    Args:
        telemetry: Where they report to.
        environment: What the processes are started with otherwise.
    """
    watch_iterations(telemetry)
    relay = telemetry.relay
    return {**telemetry.engine_environment(environment), STEPS_URL: relay.notices_url, RELAY_TOKEN: relay.token}


def environment_of_command(telemetry: Telemetry, step: str, *, gate: bool) -> Mapping[str, str]:
    """Return what makes a vLLM command report its steps, below the step with the id `step`.

    Args:
        telemetry: Where it reports to.
        step: The step it is part of.
        gate: Whether it waits for its model once it has imported everything.
    """
    variables = {"TRACEPARENT": telemetry.identity.traceparent(step), **environment_of_engine(telemetry)}
    return {**variables, GATE_URL: telemetry.relay.gate_url} if gate else variables
