"""Engines: what serves the model once the node is up. `protocol` is what an engine offers, `registry` finds it by name."""

from phasebus.initializer.engines.protocol import Engine, EngineError, Launch, Launcher, Prepared
from phasebus.initializer.engines.registry import NO_ENGINE, InstalledEngine, find_launcher, installed_engines

__all__ = [
    "NO_ENGINE",
    "Engine",
    "EngineError",
    "InstalledEngine",
    "Launch",
    "Launcher",
    "Prepared",
    "find_launcher",
    "installed_engines",
]
