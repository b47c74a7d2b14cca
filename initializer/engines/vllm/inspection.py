"""What `phasebus doctor` reports of vLLM's plugin. Imports nothing of vLLM."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Final

from phasebus.initializer.engines.optional import Check, Versions
from phasebus.initializer.engines.vllm import versions
from phasebus.initializer.engines.vllm.command_line import PLUGIN, plugin_environment

_GROUP: Final = "vllm.general_plugins"


def vllm_versions() -> Versions:
    """Return the installed version of vLLM, and the supported ones."""
    return Versions(
        title="vLLM",
        installed=versions.installed_version(),
        minimum=versions.MINIMUM,
        supported=tuple(versions.SUPPORTED),
    )


def plugin_checks() -> Iterator[Check]:
    """Yield whether a vLLM that is started here would load phasebus's plugin."""
    ours = [entry for entry in entry_points(group=_GROUP) if entry.name == PLUGIN]
    if not ours:
        advice = "install phasebus again: a stale egg-info or dist-info hides its entry points"
        yield Check(name="entry point", value=f"{_GROUP} has no phasebus", level="fix", advice=advice)
        return
    yield Check(name="entry point", value=ours[0].value)
    allowed = os.environ.get("VLLM_PLUGINS")
    added = plugin_environment(os.environ)
    if allowed is None:
        yield Check(name="VLLM_PLUGINS", value="not set: every plugin is loaded")
    elif not added:
        yield Check(name="VLLM_PLUGINS", value=f"{allowed}: phasebus is loaded")
    else:
        advice = f"`phasebus run` adds it; in a Ray Serve replica set VLLM_PLUGINS={added['VLLM_PLUGINS']}"
        yield Check(name="VLLM_PLUGINS", value=f"{allowed!r} does not name phasebus", level="note", advice=advice)
