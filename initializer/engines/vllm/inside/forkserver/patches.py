"""Where vLLM starts processes: it forks them from the server if there is one. Read from vLLM 0.32."""

from __future__ import annotations

import functools
import logging
import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import ModuleType
from typing import Any, Final

import wrapt

from phasebus.initializer.engines.vllm.inside.forkserver import channel
from phasebus.initializer.engines.vllm.inside.forkserver.process import ForkContext
from phasebus.initializer.engines.vllm.inside.variables import STEPS_URL

logger = logging.getLogger("phasebus.engine")

STARTING_PROCESSES: Final = (
    "vllm.v1.engine.coordinator",
    "vllm.v1.engine.utils",
    "vllm.v1.executor.multiproc_executor",
)
"""The modules of vLLM that start processes, by the context that their `get_mp_context` returns."""

MODEL_INSPECTION: Final = ("vllm.model_executor.models.registry", "_run_in_subprocess")
"""The function that imports a model's class in a process of its own: that takes as long as importing vLLM."""

API_SERVERS: Final = ("vllm.v1.utils", "multiprocessing")
"""The module that starts several API servers (``--api-server-count``), and what it calls ``get_context("spawn")`` of."""

_INSPECTION_SECONDS = 120.0


def use_fork_server() -> None:
    """Make vLLM fork its processes from the server, if this process has one."""
    if not channel.is_available():
        return
    context = ForkContext()
    for module in STARTING_PROCESSES:
        wrapt.register_post_import_hook(lambda found: setattr(found, "get_mp_context", lambda: context), module)
    module, name = API_SERVERS
    wrapt.register_post_import_hook(functools.partial(_replace_spawning, name, context), module)
    module, function = MODEL_INSPECTION
    wrapt.register_post_import_hook(functools.partial(_replace, function), module)


def _replace_spawning(name: str, context: ForkContext, module: ModuleType) -> None:
    """Make `module` have a copy of multiprocessing whose context "spawn" is `context`."""
    copied = ModuleType("multiprocessing")
    copied.__dict__.update(vars(multiprocessing))
    get_context = multiprocessing.get_context
    copied.get_context = lambda method=None: context if method == "spawn" else get_context(method)  # type: ignore[attr-defined]
    if getattr(module, name, None) is multiprocessing:
        setattr(module, name, copied)


def _replace(name: str, module: ModuleType) -> None:
    if (spawn := getattr(module, name, None)) is not None:
        setattr(module, name, functools.partial(_run_in_fork, spawn))


def _run_in_fork(spawn: Callable[[Callable[[], Any]], Any], call: Callable[[], Any]) -> Any:
    """Return the result of `call` in a fork; without one, that of vLLM's own function."""
    if channel.is_available():
        try:
            return _result_of_fork(call)
        except Exception as error:  # noqa: BLE001  # if it is one of `call`, vLLM's own way shows it
            logger.debug("a model is inspected in a new process: %s", error)
    return spawn(call)


def _result_of_fork(call: Callable[[], Any]) -> Any:
    import cloudpickle  # type: ignore[import-untyped]  # vLLM needs it

    context = ForkContext()
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_result, args=(sender, cloudpickle.dumps(call)), name="model inspection")
    process.start()
    try:
        sender.close()
        if not receiver.poll(_INSPECTION_SECONDS):
            raise TimeoutError
        return receiver.recv()
    finally:
        receiver.close()
        process.kill()
        process.join()


def _send_result(sender: Connection, pickled: bytes) -> None:
    """Call what has been pickled, with vLLM's plugins loaded; print nothing, as vLLM captures its output as well."""
    import cloudpickle
    from vllm.plugins import load_general_plugins

    nothing = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nothing, stream)
    os.environ.pop(STEPS_URL, None)  # this process has no steps
    load_general_plugins()
    sender.send(cloudpickle.loads(pickled)())
