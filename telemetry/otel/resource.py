"""Resources: which service, process and machine a span is from.

Source: OpenTelemetry semantic conventions, "Resource" (service, host, process, k8s).
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from importlib.metadata import version as version_of
from platform import node as host_name
from typing import Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.util.types import AttributeValue

import phasebus.telemetry.otel.sdk  # noqa: F401  # before anything of the SDK
from phasebus.printable import printable_attributes
from phasebus.telemetry.run import RunIdentity

SERVICE: Final = "phasebus"
"""The service's name where OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES name none."""

_DOWNWARD: Final = {
    "k8s.pod.name": ("POD_NAME", "K8S_POD_NAME", "MY_POD_NAME"),
    "k8s.pod.uid": ("POD_UID", "K8S_POD_UID", "MY_POD_UID"),
    "k8s.namespace.name": ("POD_NAMESPACE", "K8S_NAMESPACE_NAME", "K8S_POD_NAMESPACE", "MY_POD_NAMESPACE"),
    "k8s.node.name": ("NODE_NAME", "K8S_NODE_NAME", "MY_NODE_NAME"),
}
"""Variables that Kubernetes' downward API usually fills, by attribute."""

_OF_ONE_PROCESS: Final = frozenset({"service.instance.id", "service.version", "process.pid"})
_OF_ONE_MACHINE: Final = frozenset({"host.name", "k8s.pod.name", "k8s.pod.uid", "k8s.node.name"})


def run_resource(
    identity: RunIdentity, configured: Mapping[str, str], version: str, environment: Mapping[str, str] = os.environ
) -> Resource:
    """Return the resource of this process's own spans.

    Args:
        identity: The run.
        configured: Attributes of OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME, which win.
        version: The version of phasebus.
        environment: Where the variables of Kubernetes' downward API are read from.
    """
    pod = {
        key: value for key, names in _DOWNWARD.items() if (value := next(filter(None, map(environment.get, names)), ""))
    }
    ours: dict[str, AttributeValue] = {
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "opentelemetry",
        "telemetry.sdk.version": version_of("opentelemetry-sdk"),
        "service.name": SERVICE,
        "service.version": version,
        "service.instance.id": str(uuid.uuid4()),
        "host.name": host_name(),
        "process.pid": os.getpid(),
        "phasebus.run": identity.run,
        "phasebus.node": identity.node,
    }
    known = {key: value for key, value in {**ours, **pod, **configured}.items() if value != ""}
    return Resource(printable_attributes(known))  # bytes of a variable that are no UTF-8 cannot be encoded


def process_resource(received: Mapping[str, AttributeValue], own: Resource, *, local: bool) -> Resource:
    """Return the resource of another process of the run: what it says of itself, completed with what the run knows.

    Args:
        received: Attributes that it exported.
        own: The resource of this process.
        local: Whether it runs on this machine.
    """
    shared = {
        key: value
        for key, value in own.attributes.items()
        if key not in _OF_ONE_PROCESS and (local or key not in _OF_ONE_MACHINE) and not key.startswith("telemetry.")
    }
    known = {
        key: value
        for key, value in received.items()
        if not (key == "service.name" and str(value).startswith("unknown_service"))
    }
    pids = [value for key, value in known.items() if key == "process.pid" or key.endswith(".process_id")]
    completed = {**shared, **({"process.pid": pids[0]} if pids else {}), **known}
    completed.setdefault("service.instance.id", _instance(own, known))
    return Resource(completed)


def _instance(own: Resource, known: Mapping[str, AttributeValue]) -> str:
    """Return an id for a process that names none: one for all its spans, and another one for any other process."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{own.attributes.get('service.instance.id')} {sorted(known.items())}"))
