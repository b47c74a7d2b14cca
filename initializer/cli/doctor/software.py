"""What is installed: versions, the private parts of other libraries, and the plugin."""

from __future__ import annotations

import platform
import re
import site
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distributions, requires, version
from pathlib import Path

import phasebus
from phasebus.initializer.cli.doctor.findings import Finding
from phasebus.initializer.engines.optional import InspectableLauncher, Versions
from phasebus.initializer.engines.protocol import EngineError
from phasebus.initializer.engines.registry import engine_names, find_launcher
from phasebus.initializer.ray import versions as ray
from phasebus.initializer.seams import Seam, missing_from, series

_MOST_HIDDEN = 5
_FLOOR = re.compile(r"([\w.-]+)(?:\[[^\]]*\])?\s*>=\s*([\d.]+)$")


def find_versions() -> Iterator[Finding]:
    """Yield what runs here, and in which versions."""
    yield Finding("versions", "phasebus", f"{phasebus.__version__} in {Path(phasebus.__file__).parent}")
    yield from _duplicates()
    yield from _of_user()
    yield Finding("versions", "python", f"{platform.python_version()} at {sys.executable}")
    yield Finding("versions", "system", f"{platform.system()} {platform.release()} {platform.machine()}")
    for launcher in _inspectable():
        yield _supported(launcher.versions())
    yield _supported(
        Versions(title="Ray", installed=_version("ray"), minimum=ray.MINIMUM, supported=ray.SUPPORTED),
    )
    yield from _libraries()


def find_seams() -> Iterator[Finding]:
    """Yield which private parts of the engines and of Ray are missing in the versions that are installed."""
    for launcher in _inspectable():
        if (versions := launcher.versions()).installed is not None:
            yield _seams(versions.title, launcher.missing_seams())
    if _version("ray") is not None:
        yield _seams("Ray", missing_from(ray.SEAMS, "ray"))


def find_plugin() -> Iterator[Finding]:
    """Yield whether an engine that is started here would load phasebus's plugin."""
    for launcher in _inspectable():
        for check in launcher.plugin_checks():
            yield Finding("plugin", check.name, check.value, check.level, check.advice)


def _inspectable() -> Iterator[InspectableLauncher]:
    """Yield the launchers that describe their engine; one that cannot be imported is left to the start that names it."""
    for name in engine_names():
        with suppress(EngineError):
            launcher = find_launcher(name)
            if isinstance(launcher, InspectableLauncher):
                yield launcher


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


def _of_user() -> Iterator[Finding]:
    """Yield the packages in the user's own folder that hide another version: Apptainer mounts it into containers."""
    folder = site.getusersitepackages() if site.ENABLE_USER_SITE else ""
    own = {each.name: each.version for each in distributions(path=[folder])} if folder in sys.path else {}
    if not own:
        return
    others = {each.name: each.version for each in distributions(path=[each for each in sys.path if each != folder])}
    hidden = sorted(name for name, release in own.items() if others.get(name, release) != release)
    if hidden:
        named = ", ".join(f"{name} {own[name]} (not {others[name]})" for name in hidden[:_MOST_HIDDEN])
        more = f" and {len(hidden) - _MOST_HIDDEN} more" if len(hidden) > _MOST_HIDDEN else ""
        advice = "set PYTHONNOUSERSITE=1 to use those of this environment"
        yield Finding("versions", "user's packages", f"{folder} has {named}{more}", "note", advice)


def _supported(versions: Versions) -> Finding:
    name, release, supported = versions.title, versions.installed, versions.supported
    tested = f"supported: {supported[0]} to {supported[-1]}"
    if release is None:
        return Finding("versions", name, f"not installed ({tested})", "note")
    numbers = series(release)
    newest = series(supported[-1])
    if numbers is None or newest is None or numbers > newest:
        return Finding("versions", name, release, "note", f"not tested; {tested}")
    if numbers < versions.minimum:
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


def _seams(name: str, missing: Sequence[Seam]) -> Finding:
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
