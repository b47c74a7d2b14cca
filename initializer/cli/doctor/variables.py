"""Checks of the environment variables that affect phasebus."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator, Mapping
from typing import Final

from phasebus.initializer.cli.doctor.findings import Finding
from phasebus.initializer.cli.options import is_service_link
from phasebus.telemetry.redaction import redact_value

_PREFIXES = ("PHASEBUS_", "OTEL_")
_FOREIGN_PREFIXES = (*_PREFIXES, "HF_", "AWS_", "AZURE_", "GOOGLE_", "RAY_", "VLLM_")

MEANINGS: Final[Mapping[str, str]] = {
    "PHASEBUS_PORT": "port of /metrics",
    "PHASEBUS_HOST": "address that /metrics listens on",
    "PHASEBUS_HOSTS": "host names that /metrics is served under",
    "PHASEBUS_TOKEN": "token for requests of /metrics and the page",
    "PHASEBUS_LINGER_SECONDS": "how long /metrics stays up after a failed start",
    "PHASEBUS_TERMINATION_LOG": "file for the reason of a failed start",
    "PHASEBUS_STATE_DIR": "folder of the journals",
    "PHASEBUS_CACHE_DIR": "folder of downloaded models",
    "PHASEBUS_TRACE_URL": "address of a trace in the tracing backend",
    "PHASEBUS_KEEP_RUNS": "number of runs that are kept",
    "PHASEBUS_KEEP_DAYS": "age in days after which a run is removed",
    "PHASEBUS_FORKSERVER": "0: vLLM's processes are spawned, not forked; keep: `run` and Ray Serve LLM keep a fork server for later starts",
    "PHASEBUS_RUNTIME_DIR": "folder of the socket of a fork server that stays, and of tokens for phasebus watch; it must be private",
    "PHASEBUS_PENDING_SPANS": "1: steps are exported when they start, too",
    "PHASEBUS_ITERATION_SAMPLING": "one in this many iterations of the engine gets a span; 0 for none",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "collector of spans",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "collector of spans, full URL",
    "OTEL_TRACES_SAMPLER": "which traces are exported; the journal and the metrics have all",
    "OTEL_TRACES_EXPORTER": "exporter of spans: otlp, console or none",
    "OTEL_METRICS_EXPORTER": "exporter that metrics are pushed to, besides /metrics: otlp, console or none",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "collector of metrics, full URL",
    "OTEL_METRIC_EXPORT_INTERVAL": "time between two pushes of metrics, in milliseconds",
    "OTEL_SDK_DISABLED": "true: no spans, and no metrics are pushed",
    "TRACEPARENT": "the start becomes a part of this trace",
    "PROMETHEUS_MULTIPROC_DIR": "folder of another application's metrics; not used",
    "HF_HUB_OFFLINE": "1: models come from the cache only",
    "HF_ENDPOINT": "address of the hub",
    "HF_HOME": "folder of the hub's cache",
    "HF_HUB_CACHE": "folder of the hub's cache",
    "HF_TOKEN": "credentials for the hub",
    "VLLM_USE_MODELSCOPE": "models come from ModelScope",
    "VLLM_CPU_KVCACHE_SPACE": "GiB of the KV cache on a CPU",
    "VLLM_CACHE_ROOT": "folder of vLLM's compiled graphs",
    "VLLM_WORKER_MULTIPROC_METHOD": "how vLLM starts processes",
    "CUDA_VISIBLE_DEVICES": "GPUs that are used",
    "RAY_ADDRESS": "Ray cluster that is joined",
    "ACCESSIBLE": "1: lines instead of a live display, for screen readers",
}

_PROXIES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
_USER_NAMES: Final = ("LOGNAME", "USER", "LNAME", "USERNAME")
_LOOPBACK: Final = ("localhost", "127.0.0.1")


def find_variables(environment: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Yield each variable that is set and affects phasebus; secrets are masked."""
    named = [name for name in environment if name in MEANINGS or name.startswith(_PREFIXES)]
    for name in sorted(named):
        meaning = MEANINGS.get(name, "")
        shown = str(redact_value(name, environment[name]))
        yield Finding("variables", name, f"{shown}  ({meaning})" if meaning else shown)
    if not named:
        yield Finding("variables", "none", "no variable changes a default of phasebus")


def find_service_links(environment: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Yield the variables that Kubernetes set for a Service, and that are read as a setting."""
    off = "set enableServiceLinks: false in the pod, or rename the Service"
    if is_service_link(environment.get("PHASEBUS_PORT", "")):
        value = "Kubernetes set it for the Service phasebus; phasebus ignores it"
        yield Finding("variables", "PHASEBUS_PORT", value, "note", off)
    if is_service_link(environment.get("VLLM_PORT", "")):
        yield Finding("variables", "VLLM_PORT", "Kubernetes set it for the Service vllm; vLLM rejects it", "fix", off)


def find_stray_characters(environment: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Yield the variables with quotes around their values, or with white space at their ends, as files of variables leave it."""
    for name in sorted(environment):
        if name in MEANINGS or name.startswith(_FOREIGN_PREFIXES) or name.upper() in _PROXIES:
            value = environment[name]
            if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
                advice = "remove them: `docker run --env-file` and Kubernetes keep them"
                yield Finding("variables", name, "the quotes around its value are a part of it", "fix", advice)
            elif value != value.strip():
                advice = "remove it; a file of variables needs the line ends of Unix"
                yield Finding("variables", name, "its value begins or ends with white space", "note", advice)


def find_proxies(environment: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Yield the configured proxies."""
    found = {name: environment.get(name) or environment.get(name.lower()) for name in _PROXIES}
    excluded = found.pop("NO_PROXY") or ""
    named = [f"{name}={redact_value(name, value)}" for name, value in found.items() if value]
    if not named:
        yield Finding("proxies", "none", "connections are direct")
        return
    if excluded != "*" and not set(_LOOPBACK) <= {part.strip() for part in excluded.split(",")}:
        advice = "phasebus adds loopback to NO_PROXY for its engine; set it for other clients"
        yield Finding("proxies", "proxies", "; ".join(named), "note", advice)
    else:
        yield Finding("proxies", "proxies", f"{'; '.join(named)}; NO_PROXY={excluded}")


def find_user(environment: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Yield the user of this process and their home folder, and whether a library may look up a name in vain.

    Source: `getpass.getuser`, which torch before 2.13 calls for the folder of its compiler.
    """
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = "without a name"
        if not any(environment.get(each) for each in _USER_NAMES):
            advice = "set USER to any name: torch before 2.13, and so vLLM, fails without one"
            yield Finding("folders", "user name", f"none for the uid {os.getuid()}", "note", advice)
    home = environment.get("HOME")
    value = f"{os.getuid()} ({name}), HOME={home or 'not set'}"
    if home and os.access(home, os.W_OK):
        yield Finding("folders", "user", value)
    else:
        yield Finding("folders", "user", value, "note", "set PHASEBUS_STATE_DIR, PHASEBUS_CACHE_DIR and HF_HOME")
