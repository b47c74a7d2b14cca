"""The environment of vLLM's processes: where they report to."""

from __future__ import annotations

import os
from collections.abc import Mapping

from phasebus.initializer.engines.vllm.inside.variables import GATE_URL, RELAY_TOKEN, STEPS_URL
from phasebus.initializer.engines.vllm.iteration_metrics import watch_iterations
from phasebus.telemetry import Telemetry

_ENDPOINT, _PROTOCOL = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"


def environment_of_engine(
    telemetry: Telemetry, environment: Mapping[str, str] = os.environ, *, traces_endpoint: str | None = None
) -> Mapping[str, str]:
    """Return what makes vLLM's processes report their steps; from now on their iterations are counted.

    Args:
        telemetry: Where they report to.
        environment: What the processes are started with otherwise.
        traces_endpoint: Where vLLM's own argument makes it export its spans, with the protocol that it is configured for;
            None makes it export them to the relay.
    """
    watch_iterations(telemetry)
    relay = telemetry.relay
    variables = {**telemetry.engine_environment(environment), STEPS_URL: relay.notices_url, RELAY_TOKEN: relay.token}
    if traces_endpoint is not None:
        relay.is_bypassed = telemetry.collector is not None and telemetry.collector.is_at(traces_endpoint)
        variables[_ENDPOINT] = traces_endpoint
        del variables[_PROTOCOL]
    return variables


def environment_of_command(
    telemetry: Telemetry, step: str, *, gate: bool, traces_endpoint: str | None = None
) -> Mapping[str, str]:
    """Return what makes a vLLM command report its steps, below the step with the id `step`.

    Args:
        telemetry: Where it reports to.
        step: The step it is part of.
        gate: Whether it waits for its model once it has imported everything.
        traces_endpoint: Where its arguments make it export its spans; None makes it export them to the relay.
    """
    engine = environment_of_engine(telemetry, traces_endpoint=traces_endpoint)
    variables = {"TRACEPARENT": telemetry.identity.traceparent(step), **engine}
    return {**variables, GATE_URL: telemetry.relay.gate_url} if gate else variables
