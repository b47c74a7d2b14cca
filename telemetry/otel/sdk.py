"""The one place where OpenTelemetry's SDK is imported, and where more than its public face is relied on (SDK 1.27 to 1.45).

A contract test covers each: the SDK reads OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT while it is imported and fails on a value that it
rejects; a `ReadableSpan` made with its public constructor is exported as it is; a context that carries the key
``_SUPPRESS_INSTRUMENTATION_KEY`` keeps instrumented HTTP and gRPC clients from tracing an export; providers and exporters use
the global meter provider, which OTEL_PYTHON_METER_PROVIDER names, unless they have an argument ``meter_provider``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any, Final

from phasebus.telemetry.otel.findings import Findings
from phasebus.telemetry.otel.settings import TraceSettings

_GRPC_FORKS: Final = "GRPC_ENABLE_FORK_SUPPORT"


def import_sdk() -> None:
    """Import the SDK with the variables that it rejects out of its way; afterwards they are as they were."""
    findings = Findings()
    TraceSettings.from_environment(findings=findings)
    with without_variables(findings.repairs):
        import opentelemetry.sdk.trace  # noqa: F401


@contextmanager
def without_variables(names: Iterable[str]) -> Iterator[None]:
    """Remove variables from the environment of this process within; afterwards they are as they were."""
    removed = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(removed)


@contextmanager
def without_fork_handlers() -> Iterator[None]:
    """Initialize gRPC within, if it is the first time, without its handlers of forks; an environment that names them comes first.

    In a process with a channel, gRPC's handler for the child may abort it before it executes a program: Ray's raylet, for
    example, which Ray then waits for. Such a child uses no channel. Source: grpc, doc/environment_variables.md.
    """
    if _GRPC_FORKS in os.environ:
        yield
        return
    os.environ[_GRPC_FORKS] = "0"
    try:
        yield
    finally:
        os.environ.pop(_GRPC_FORKS, None)


def without_own_metrics(make: Callable[..., Any]) -> dict[str, Any]:
    """Return the arguments with which `make`, a class of the SDK, does not measure itself with the global meter provider."""
    from opentelemetry.metrics import NoOpMeterProvider

    return {"meter_provider": NoOpMeterProvider()} if "meter_provider" in signature(make).parameters else {}


@contextmanager
def suppressed_instrumentation() -> Iterator[None]:
    """Keep what instruments this process from tracing the requests made within."""
    from opentelemetry import context  # its import reads OTEL_PYTHON_CONTEXT

    key = getattr(context, "_SUPPRESS_INSTRUMENTATION_KEY", None)
    if key is None:  # a version that has no such key traces them, as it would for any other exporter
        yield
        return
    token = context.attach(context.set_value(key, True))
    try:
        yield
    finally:
        context.detach(token)


import_sdk()
