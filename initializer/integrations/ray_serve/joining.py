"""Which process observes the start of an application: the program that builds it, or else one of its replicas."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import replace

from phasebus.initializer.integrations.ray_serve.application import ApplicationStart
from phasebus.initializer.integrations.ray_serve.shared_trace import SharedTrace
from phasebus.telemetry import RunIdentity, Telemetry, redact

logger = logging.getLogger("phasebus.serve")

_lock = threading.Lock()
_current: ApplicationStart | None = None


def join_application(deployment: str, model: str, environment: Mapping[str, str]) -> Mapping[str, str]:
    """Return the variables by which the replicas of a deployment join the trace of the application being built.

    Empty if this program exports no spans: the replicas then have traces of their own.

    Args:
        deployment: The name that Serve knows it by.
        model: Its model.
        environment: The variables of its replicas; the OTEL_* variables among them have precedence over those of this
            process.
    """
    global _current  # noqa: PLW0603  # Ray calls this once for each deployment of an application
    if "TRACEPARENT" in environment:
        return {}
    with _lock:
        if _current is None or _current.ended:
            telemetry = _telemetry({name: value for name, value in environment.items() if name.startswith("OTEL_")})
            if telemetry is None:
                return {}
            _current = ApplicationStart(telemetry)
        return _current.add(deployment, model)


def observe_shared(shared: SharedTrace, deployment: str, model: str) -> None:
    """Observe the start of the application that this replica is a part of, unless another replica does. Never waits.

    Args:
        shared: The trace of the application.
        deployment: The deployment of this replica.
        model: Its model.
    """

    def observe() -> None:
        try:
            telemetry = _telemetry({}, replace(RunIdentity.fresh("serve", {}), trace=shared.trace))
            if telemetry is not None and shared.claim():
                ApplicationStart(telemetry, shared=shared).add(deployment, model)
        except Exception as error:  # noqa: BLE001  # the replica starts without
            logger.warning("the start of the application is not traced: %s", redact(str(error)))

    threading.Thread(target=observe, name="phasebus serve trace", daemon=True).start()


def _telemetry(variables: Mapping[str, str], identity: RunIdentity | None = None) -> Telemetry | None:
    """Return what exports spans as the replicas do; None if nothing does."""
    try:
        identity = identity or RunIdentity.fresh("serve")
        telemetry = Telemetry(identity, port=None, environment={**os.environ, **variables})
    except Exception as error:  # noqa: BLE001  # the application starts without
        logger.warning("the start of the application is not traced: %s", redact(str(error)))
        return None
    return telemetry if telemetry.tracing.exports else None
