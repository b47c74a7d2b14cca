"""What is installed: versions, the private parts of other libraries, and the plugin."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distributions, entry_points, requires, version
from pathlib import Path

import phasebus
from phasebus.initializer.cli.doctor.findings import Finding
from phasebus.initializer.engines.vllm import versions as vllm
from phasebus.initializer.engines.vllm.command_line import PLUGIN, plugin_environment
from phasebus.initializer.engines.vllm.seams import missing_seams
from phasebus.initializer.ray import versions as ray
from phasebus.initializer.seams import Seam, missing_from, series

_FLOOR = re.compile(r"([\w.-]+)(?:\[[^\]]*\])?\s*>=\s*([\d.]+)$")
_GROUP = "vllm.general_plugins"


def find_versions() -> Iterator[Finding]:
    """Yield what runs here, and in which versions."""
    yield Finding("versions", "phasebus", f"{phasebus.__version__} in {Path(phasebus.__file__).parent}")
    yield from _duplicates()
    yield Finding("versions", "python", f"{platform.python_version()} at {sys.executable}")
    yield Finding("versions", "system", f"{platform.system()} {platform.release()} {platform.machine()}")
    yield _engine("vLLM", vllm.installed_version(), vllm.MINIMUM, tuple(vllm.SUPPORTED))
    yield _engine("Ray", _version("ray"), ray.MINIMUM, ray.SUPPORTED)
    yield from _libraries()


def find_seams() -> Iterator[Finding]:
    """Yield which private parts of vLLM and Ray are missing in the versions that are installed."""
    if vllm.installed_version() is not None:
        yield _seams("vLLM", missing_seams())
    if _version("ray") is not None:
        yield _seams("Ray", missing_from(ray.SEAMS, "ray"))


def find_plugin() -> Iterator[Finding]:
    """Yield whether a vLLM that is started here would load phasebus's plugin."""
    ours = [entry for entry in entry_points(group=_GROUP) if entry.name == PLUGIN]
    if not ours:
        advice = "install phasebus again: a stale egg-info or dist-info hides its entry points"
        yield Finding("plugin", "entry point", f"{_GROUP} has no phasebus", "fix", advice)
        return
    yield Finding("plugin", "entry point", ours[0].value)
    allowed = os.environ.get("VLLM_PLUGINS")
    added = plugin_environment(os.environ)
    if allowed is None:
        yield Finding("plugin", "VLLM_PLUGINS", "not set: every plugin is loaded")
    elif not added:
        yield Finding("plugin", "VLLM_PLUGINS", f"{allowed}: phasebus is loaded")
    else:
        advice = f"`phasebus run` adds it; in a Ray Serve replica set VLLM_PLUGINS={added['VLLM_PLUGINS']}"
        yield Finding("plugin", "VLLM_PLUGINS", f"{allowed!r} does not name phasebus", "note", advice)


def _duplicates() -> Iterator[Finding]:
    """Yield the metadata of phasebus if it is missing, or there is some of another installation.

    Python uses the first that it finds: a stale one hides the entry points of the other, as in a source folder.
    """
    found = {
        str(each.locate_file("")): (each.version, sorted(each.entry_points)) for each in distributions(name="phasebus")
    }
    if not found:
        yield Finding("versions", "metadata", "there is none of phasebus", "fix", "install it: pip install phasebus")
    elif any(each != next(iter(found.values())) for each in found.values()):
        folders = ", ".join(found)
        yield Finding("versions", "metadata", "differs between two installations", "fix", f"keep one of {folders}")


def _engine(name: str, release: str | None, minimum: tuple[int, int], supported: tuple[str, ...]) -> Finding:
    tested = f"supported: {supported[0]} to {supported[-1]}"
    if release is None:
        return Finding("versions", name, f"not installed ({tested})", "note")
    numbers = series(release)
    newest = series(supported[-1])
    if numbers is None or newest is None or numbers > newest:
        return Finding("versions", name, release, "note", f"not tested; {tested}")
    if numbers < minimum:
        return Finding("versions", name, release, "fix", f"too old; {tested}")
    return Finding("versions", name, f"{release} ({tested})")


def _libraries() -> Iterator[Finding]:
    floors = [found for each in requires("phasebus") or () if (found := _FLOOR.match(each)) is not None]
    shown = ", ".join(
        f"{name} {_version(name)}" for name in ("anyio", "huggingface-hub", "prometheus-client", "pydantic")
    )
    yield Finding("versions", "libraries", f"OpenTelemetry {_version('opentelemetry-sdk')}, {shown}")
    for found in floors:
        name, floor = found.groups()
        release = _version(name)
        if release is None or _numbers(release) < _numbers(floor):
            value = "not installed" if release is None else f"{release} is too old"
            yield Finding("versions", name, value, "fix", f"pip install '{name}>={floor}'")


def _seams(name: str, missing: list[Seam]) -> Finding:
    if not missing:
        return Finding("seams", name, "every private part that phasebus uses is there")
    lost = ", ".join(dict.fromkeys(seam.purpose for seam in missing))
    return Finding("seams", name, f"{len(missing)} private parts are missing", "note", f"without them: {lost}")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", release)[:3])
