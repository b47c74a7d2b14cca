"""What Serve knows of its applications, and what this process is in them.

Read from Ray 2.60: `ray.serve.status` is public; the mode of a worker and the names of Serve's actors are private.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Thread
from typing import Final

_STATUS_SECONDS: Final = 5.0
"""The longest wait for Serve's controller, in seconds."""

_REPLICA: Final = "SERVE_REPLICA::"
"""How the name of a replica's actor begins."""

HEALTHY: Final = "HEALTHY"
DEPLOYING: Final = "DEPLOYING"
RUNNING: Final = "RUNNING"
DEPLOY_FAILED: Final = "DEPLOY_FAILED"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplicationState:
    """The state of an application.

    Attributes:
        name: Its name.
        status: ``DEPLOYING``, ``RUNNING``, ``DEPLOY_FAILED`` and others.
        message: Why it is in that state.
        deployed_ns: When the controller got the request to deploy it, in nanoseconds since the epoch.
        deployments: The status of each deployment, by its name: ``UPDATING``, ``HEALTHY`` and others.
    """

    name: str
    status: str
    message: str
    deployed_ns: int
    deployments: Mapping[str, str]


def is_driver() -> bool:
    """Return whether this process is the program that uses Ray, and no process that Ray has started."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return False
    worker = getattr(ray.get_runtime_context(), "worker", None)
    return bool(getattr(worker, "mode", None) == ray.SCRIPT_MODE)


def is_replica() -> bool:
    """Return whether this process is a replica, also while Serve loads what it runs."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized() or is_driver():
        return False
    name = ray.get_runtime_context().get_actor_name()
    return name is not None and str(name).startswith(_REPLICA)


def applications() -> Sequence[ApplicationState] | None:
    """Return the applications; None if Serve does not run, or does not answer within `_STATUS_SECONDS`."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None  # asking Serve would start a Ray
    found: list[ApplicationState] = []
    if not _within_seconds(lambda: found.extend(_applications())):
        return None
    return found


def _applications() -> Sequence[ApplicationState]:
    from ray import serve

    return [
        ApplicationState(
            name=name,
            status=_text(overview.status),
            message=overview.message,
            deployed_ns=int(overview.last_deployed_time_s * 1e9),
            deployments={each: _text(deployment.status) for each, deployment in overview.deployments.items()},
        )
        for name, overview in serve.status().applications.items()
    ]


def _text(status: object) -> str:
    return str(getattr(status, "value", status))


def _within_seconds(function: Callable[[], object]) -> bool:
    """Call `function` in a thread; return whether it has returned in time."""
    returned: list[bool] = []

    def call() -> None:
        try:
            function()
        except Exception:  # noqa: BLE001  # Ray's and Serve's errors have no common class
            return
        returned.append(True)

    thread = Thread(target=call, name="phasebus serve status", daemon=True)
    thread.start()
    thread.join(_STATUS_SECONDS)
    return bool(returned)
