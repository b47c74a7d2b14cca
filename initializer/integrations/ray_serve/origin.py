"""Why a replica starts: as a part of its application's start, or later, by autoscaling or in place of one that died."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from phasebus.initializer.integrations.ray_serve.application import JOINED
from phasebus.initializer.integrations.ray_serve.shared_trace import SharedTrace
from phasebus.initializer.integrations.ray_serve.status import DEPLOYING, ApplicationState, applications
from phasebus.telemetry import RunIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaOrigin:
    """Where the start of a replica belongs.

    Attributes:
        identity: The run, in the trace of the application's start or in one of its own.
        requested_ns: When it was asked for, in nanoseconds since the epoch; None if that is not known.
        linked_to: The traceparent of the start of its application, for a replica that starts later; else None.
        shared: The trace of a start that only its replicas observe, for a replica that is a part of it; else None.
    """

    identity: RunIdentity
    requested_ns: int | None = None
    linked_to: str | None = None
    shared: SharedTrace | None = None


def replica_origin(
    name: str,
    application: str | None,
    environment: Mapping[str, str] = os.environ,
    states: Sequence[ApplicationState] | None = None,
    *,
    deployment: str | None = None,
) -> ReplicaOrigin:
    """Return the origin of the replica that this process is.

    Args:
        name: The name of the replica.
        application: The name of its application; None outside Serve.
        environment: Its variables.
        states: The state of Serve's applications; by default Serve is asked.
        deployment: The name of its deployment; None outside Serve.
    """
    identity = RunIdentity.fresh(name, environment)
    is_observed = JOINED in environment and identity.parent is not None
    is_alone = identity.parent is None and deployment is not None  # no program has set a TRACEPARENT
    if application is None or not (is_observed or is_alone):
        return ReplicaOrigin(identity=identity)
    known = applications() if states is None else states
    own = next((state for state in known or () if state.name == application), None)
    if own is None:
        return ReplicaOrigin(identity=identity)
    shared = SharedTrace(own.name, own.deployed_ns) if is_alone else None
    if shared is not None and deployment is not None:
        environment = {**environment, "TRACEPARENT": shared.traceparent(deployment, environment)}
    if own.status == DEPLOYING and not (shared is not None and shared.has_ended()):
        identity = RunIdentity.fresh(name, environment)
        return ReplicaOrigin(identity=identity, requested_ns=own.deployed_ns, shared=shared)
    others = {key: value for key, value in environment.items() if key != "TRACEPARENT"}
    return ReplicaOrigin(identity=RunIdentity.fresh(name, others), linked_to=environment["TRACEPARENT"])
