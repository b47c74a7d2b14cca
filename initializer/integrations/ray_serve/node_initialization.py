"""Initializing the node of a replica in its own process, where Ray would import Ray Serve LLM in another one to do it.

Private seams: `initialize_node` of `ray/llm/_internal/serve/utils/node_initialization_utils.py`, which
`engines/vllm/vllm_engine.py` calls; and `download_model_files`, which it calls in a task on each node. Read from Ray 2.60.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final

logger = logging.getLogger("phasebus.serve")

_CALLER: Final = "ray.llm._internal.serve.engines.vllm.vllm_engine"
_HOOK: Final = "on_before_download_model_files_distributed"


def initialize_in_replica(runtime_env: Any) -> None:
    """Make Ray's engine initialize the node in this process, if it is the replica's only node and has nothing to download.

    Otherwise, and after an error, Ray runs its tasks. Without Ray's engine in this process nothing changes.

    Args:
        runtime_env: What Ray runs its tasks with; a replica for which a callback changes it keeps them.
    """
    caller = sys.modules.get(_CALLER)
    if (by_tasks := getattr(caller, "initialize_node", None)) is not None:
        initialize = functools.partial(_initialize, by_tasks, repr(runtime_env))
        caller.initialize_node = initialize  # type: ignore[union-attr]  # it has the attribute


async def _initialize(by_tasks: Callable[[Any], Awaitable[None]], runtime_env: str, config: Any) -> None:
    try:
        callback = config.get_or_create_callback()
        is_here = (
            repr(callback.ctx.runtime_env) == runtime_env and _downloads_nothing(config) and _is_on_this_node(config)
        )
        if is_here:
            await asyncio.to_thread(_prepare_node, config)
    except Exception as error:  # noqa: BLE001  # Ray's own way reports what is wrong
        logger.debug("Ray initializes the node in a task: %s: %s", type(error).__name__, error)
        is_here = False
    if not is_here:
        await by_tasks(config)


def _downloads_nothing(config: Any) -> bool:
    """Return whether Ray's task would only prepare a folder: there is no mirror, and no callback to call before a download."""
    from ray.llm._internal.common.callbacks.base import CallbackBase
    from ray.llm._internal.common.utils.cloud_utils import is_remote_path

    engine = config.get_engine_config()
    hook = getattr(config.get_or_create_callback(), _HOOK)
    is_empty = getattr(hook, "__func__", hook) is getattr(CallbackBase, _HOOK)
    return is_empty and engine.mirror_config is None and not is_remote_path(engine.actual_hf_model_id)


def _is_on_this_node(config: Any) -> bool:
    """Return whether all of the replica's placement group is on the node of this process."""
    import ray

    group = config.get_or_create_callback().ctx.placement_group
    nodes = set(ray.util.placement_group_table(group)["bundles_to_node_id"].values())
    return nodes == {ray.get_runtime_context().get_node_id()}


def _prepare_node(config: Any) -> None:
    """Do what Ray's task does on a node, and what `initialize_node` does with its result."""
    from ray.llm._internal.serve.utils.node_initialization_utils import initialize_remote_node

    config.get_engine_config().hf_model_id = initialize_remote_node(config)
