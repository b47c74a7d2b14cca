"""The configuration of a start as its history knows it: what its durations depend on."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from phasebus.initializer.engines.optional import DescribesFactors
from phasebus.initializer.engines.registry import find_launcher
from phasebus.initializer.node.config import LLMConfig
from phasebus.telemetry.history import BUSYNESS, Configuration, busyness, machine_factors, version_factors
from phasebus.telemetry.redaction import redact

logger = logging.getLogger("phasebus.telemetry")


def described_configuration(factors: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """Return the attributes that describe a configuration: the factors of the machine, and those that `factors` returns.

    They include how busy the machine is now, which is no factor.

    An error of `factors`, such as of an engine that another package adds, is logged: it must not fail a start.
    """
    try:
        configuration = Configuration.of({**version_factors(), **machine_factors(), **factors()})
        return {**configuration.attributes, BUSYNESS: busyness()}
    except Exception as error:  # noqa: BLE001  # no description may prevent a start
        logger.warning("this run has no history: %s", redact(str(error) or type(error).__name__))
        return {}


def node_factors(config: LLMConfig) -> dict[str, Any]:
    """Return the factors of a node's configuration."""
    launcher = find_launcher(config.engine)
    environment = {**os.environ, **config.engine_env}
    return {
        "model": config.model,
        "engine": config.engine,
        "preload": config.engine_preload,
        "forkserver": "keep" if config.forkserver == "keep" else None,
        "download": config.local_node_download_model,
        "callbacks": ", ".join(_names(config.callbacks)) or None,
        **engine_factors(launcher, config.engine_args, environment),
    }


def engine_factors(engine: object, args: Mapping[str, Any], environment: Mapping[str, str]) -> Mapping[str, Any]:
    """Return the factors of an engine; its arguments if it describes none.

    Args:
        engine: A launcher or an observer.
        args: The engine's own arguments.
        environment: The environment of its processes.
    """
    if isinstance(engine, DescribesFactors):
        return engine.factors(args, environment)
    return {f"args.{name}": value for name, value in args.items()}


def _names(callbacks: Iterable[Any]) -> Iterable[str]:
    for each in callbacks:
        named = each if hasattr(each, "__qualname__") else type(each)
        yield f"{named.__module__}:{named.__qualname__}"
