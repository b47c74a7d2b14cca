"""What a configuration needs around it: the port, the Ray cluster, the journal's folder and readable credentials."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from phasebus.initializer.cli.doctor.findings import Finding
from phasebus.initializer.cli.doctor.machine import find_folders
from phasebus.initializer.cli.doctor.ports import address_alone, endpoint, free_text, is_taken, listen_error, reason_of
from phasebus.initializer.cli.options import port_of
from phasebus.initializer.cluster.config import ClusterConfig
from phasebus.initializer.node.config import LLMConfig, ServiceConfig
from phasebus.initializer.ray.address import host_and_port
from phasebus.telemetry.redaction import redact

_CONNECT_SECONDS: Final = 2.0

FILE_VARIABLES: Final = (
    "HF_TOKEN_PATH",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CONFIG_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AZURE_FEDERATED_TOKEN_FILE",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "RAY_AUTH_TOKEN_PATH",
    "OTEL_EXPORTER_OTLP_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_KEY",
    "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
    "SSL_CERT_FILE",
)
"""The variables that name a file with a token, a key or certificates."""


def examine(config: LLMConfig | ClusterConfig, environment: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Yield the findings about what surrounds a configuration."""
    yield from _service(config.service, environment)
    yield from _ray(config.ray.address or environment.get("RAY_ADDRESS"))
    yield from find_folders()
    yield from find_files(environment)


def _service(service: ServiceConfig, environment: Mapping[str, str]) -> Iterator[Finding]:
    variable = port_of(environment.get("PHASEBUS_PORT", ""))
    port = service.port if variable is None else variable
    if port is None:
        yield Finding("service", "port", "no /metrics and no page: service.port is null")
        return
    host = environment.get("PHASEBUS_HOST") or service.host
    where = endpoint(host, port)
    if (error := listen_error(host, port)) is None:
        yield Finding("service", "port", free_text(host, port))
    elif is_taken(error):
        advice = "the start uses the next free port, and prints it"
        yield Finding("service", "port", f"cannot listen on {where}: {reason_of(error)}", "note", advice)
    else:
        advice = "the start has no /metrics, no probes and no page then"
        if (alone := address_alone(host)) is not None:
            advice = f"{advice}; the port is a field of its own: service.host: {alone}, and service.port"
        yield Finding("service", "host", f"cannot listen on {where}: {reason_of(error)}", "note", advice)
    if service.access.token is None and host not in ("127.0.0.1", "localhost", "::1"):
        advice = "set service.token or PHASEBUS_TOKEN for the page and its data"
        yield Finding("service", "token", "none: other machines get the probes and /metrics only", "note", advice)


def _ray(address: str | None) -> Iterator[Finding]:
    if address is None:
        return
    found = host_and_port(address)
    if found is None:
        if (reason := _reason_against(address)) is None:
            yield Finding("ray", "address", redact(address))
        else:
            advice = (
                "write HOST:PORT of the cluster's head node; `ray start --head` prints it, with port 6379 by default"
            )
            yield Finding("ray", "address", f"{redact(address)}: {reason}", "fix", advice)
        return
    try:
        with socket.create_connection(found, _CONNECT_SECONDS):
            yield Finding("ray", "address", f"{redact(address)} accepts connections")
    except OSError as error:
        advice = "is this the address of the cluster's head node, and does it run?"
        yield Finding(
            "ray", "address", f"cannot connect to {redact(address)}: {error.strerror or error}", "fix", advice
        )


def _reason_against(address: str) -> str | None:
    """Return why Ray would reject an address without a host and a port; None if it may accept it."""
    if address.startswith(("http://", "https://")):
        return "the address of a dashboard, for `ray job`; the start needs that of the cluster"
    if address in ("auto", "local") or "://" in address:  # other schemes are those of plugins
        return None
    return "it names no host and port"


def find_files(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Yield whether the files with credentials that variables name can be read, and the hub's token if there is one."""
    for name in FILE_VARIABLES:
        if value := environment.get(name):
            yield _readable(name, Path(value))
    home = Path(environment.get("HF_HOME") or Path(environment.get("HOME", "/"), ".cache", "huggingface"))
    token = home / "token"
    if not (environment.get("HF_TOKEN") or environment.get("HF_TOKEN_PATH")) and os.path.lexists(token):
        yield _readable("the hub's token", token)


def _readable(name: str, path: Path) -> Finding:
    try:
        with path.open("rb") as file:
            content = file.read(1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        return Finding(
            "credentials", name, f"{path} cannot be read: {reason}", "fix", f"correct {name}, or its permissions"
        )
    if not content:
        return Finding("credentials", name, f"{path} is empty", "fix", "write the file again")
    return Finding("credentials", name, str(path))
