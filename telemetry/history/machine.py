"""The factors of the machine and of the installed software. Reading them takes milliseconds and imports nothing heavy."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import psutil

from phasebus import __version__
from phasebus.telemetry.history.configuration import Factor
from phasebus.telemetry.history.cpu_quota import cpu_quota

_CPUINFO: Final = Path("/proc/cpuinfo")
_CPUINFO_BYTES: Final = 4096
_MODEL_FIELDS: Final = ("model name", "Hardware", "CPU part")
_GPUS: Final = Path("/proc/driver/nvidia/gpus")
_GIB: Final = 2**30
_MAX_GPUS: Final = 64


@cache
def machine_factors() -> Mapping[str, Factor]:
    """Return the processor, its usable number, the memory in GiB and the GPUs; what cannot be read is left out."""
    factors: dict[str, Factor] = {"machine.arch": platform.machine(), "machine.cpus": usable_cpus()}
    with suppress(OSError):
        factors["machine.cpu"] = _cpu_model()
    with suppress(psutil.Error, OSError):
        factors["machine.memory_gib"] = round(psutil.virtual_memory().total / _GIB)
    with suppress(OSError):
        factors["machine.gpus"] = _gpus()
    return factors


def busyness() -> float:
    """Return how many processes compete for each usable CPU, this one included; at least 1."""
    try:
        return max(1.0, round((os.getloadavg()[0] + 1) / usable_cpus(), 2))
    except (OSError, AttributeError):
        return 1.0


def cpu_seconds(pid: int) -> float | None:
    """Return the CPU time that a process has used, in seconds; None if it is gone or may not be seen."""
    try:
        times = psutil.Process(pid).cpu_times()
    except (psutil.Error, OSError):
        return None
    return float(times.user + times.system)


def version_factors(distributions: Iterable[str] = ()) -> Mapping[str, Factor]:
    """Return the versions of phasebus, Python and those of `distributions` that are installed."""
    factors: dict[str, Factor] = {"version.phasebus": __version__, "version.python": platform.python_version()}
    installed = {name: _installed_version(name) for name in distributions}
    return factors | {f"version.{name}": version for name, version in installed.items() if version is not None}


@cache
def _installed_version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def usable_cpus() -> int | float:
    """Return how many CPUs this process may use: those that it is bound to, or fewer by the quota of a container."""
    try:
        seen = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        seen = os.cpu_count() or 1
    quota = cpu_quota()
    if quota is None or quota >= seen:
        return seen
    return int(quota) if quota.is_integer() else round(quota, 2)


def _cpu_model() -> str:
    with _CPUINFO.open(encoding="utf-8", errors="replace") as file:
        for line in file.read(_CPUINFO_BYTES).splitlines():
            name, _, value = line.partition(":")
            if name.strip() in _MODEL_FIELDS:
                return value.strip()
    return ""


def _gpus() -> str:
    """Return the models of the NVIDIA GPUs of this machine with their numbers; "" without any."""
    models: dict[str, int] = {}
    if _GPUS.is_dir():
        for gpu in sorted(_GPUS.iterdir())[:_MAX_GPUS]:
            for line in (gpu / "information").read_text(errors="replace").splitlines():
                name, _, value = line.partition(":")
                if name == "Model":
                    models[value.strip()] = models.get(value.strip(), 0) + 1
    return ", ".join(f"{number} x {model}" for model, number in sorted(models.items()))
