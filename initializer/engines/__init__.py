"""Engines: what serves the model once the node is up. `protocol` says what an engine has to offer."""

from phasebus.initializer.engines.protocol import Engine, EngineError, Launch, Launcher, Prepared, workers_of

__all__ = ["Engine", "EngineError", "Launch", "Launcher", "Prepared", "workers_of"]
