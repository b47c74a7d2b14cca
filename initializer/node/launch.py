"""What an engine is launched with, as far as the configuration and the context provide it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from phasebus.bus import Bus, Context
from phasebus.initializer.downloads.sources import repository_name
from phasebus.initializer.engines.protocol import Launch, Serving
from phasebus.initializer.node.config import LLMConfig, ServeConfig
from phasebus.initializer.node.keys import (
    DOWNLOAD_RESULT,
    ENGINE_ARGS,
    ENGINE_ENV,
    LOCAL_NODE_DOWNLOAD_MODEL,
    MODEL,
    PLACEMENT_BUNDLE,
    PLACEMENT_GROUP,
    RUNTIME_ENV,
    SKIP_DEFAULT,
)
from phasebus.telemetry import RunIdentity, Telemetry
from phasebus.telemetry.journal import journal_of


def launch_of(config: LLMConfig, context: Context, step: str, bus: Bus, telemetry: Telemetry) -> Launch:
    """Return the launch parameters of the engine, as far as they are known.

    Args:
        config: The configuration of the node.
        context: The context of its phases.
        step: The id of the step that the engine's steps are part of.
        bus: Where they are published.
        telemetry: The telemetry of the run.
    """
    fetched = context.get(DOWNLOAD_RESULT)
    will_be_fetched = not context.get(SKIP_DEFAULT) and context[LOCAL_NODE_DOWNLOAD_MODEL] != "NONE"
    return Launch(
        bus=bus,
        telemetry=telemetry,
        step=step,
        model=context[MODEL] if fetched is None else str(fetched.path),
        local=will_be_fetched or os.path.exists(context[MODEL]),
        args=context[ENGINE_ARGS],
        env=context[ENGINE_ENV],
        runtime_env=context[RUNTIME_ENV],
        placement_group=context.get(PLACEMENT_GROUP),
        bundle=context.get(PLACEMENT_BUNDLE, 0),
        preload=config.engine_preload,
        iteration_sampling=config.engine_iteration_sampling,
        timeout=config.engine_timeout_seconds,
        log=_engine_log(telemetry.identity),
        serve=None if config.serve is None else _serving(config.serve, context[MODEL]),
        forkserver=config.forkserver,
    )


def _serving(serve: ServeConfig, model: str) -> Serving:
    """Return how the engine serves `model`; a model of the hub is served under its name there."""
    return Serving(
        host=serve.host,
        port=serve.port,
        exact=serve.exact,
        name=repository_name(model),
        args=serve.args,
        drain_seconds=serve.drain_seconds,
    )


def _engine_log(identity: RunIdentity) -> Path:
    """Return the path of the file for the engine's output: beside the journal, or else in the folder for temporary files."""
    path = journal_of(identity).with_suffix(".engine.log")
    if os.access(path.parent, os.W_OK):
        return path
    try:
        return Path(tempfile.gettempdir()) / f"phasebus-{identity.run}-{identity.node.replace(os.sep, '_')}.engine.log"
    except FileNotFoundError:  # no folder for temporary files is writable either
        return Path(os.devnull)
