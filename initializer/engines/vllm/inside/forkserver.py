"""A fork server that has vLLM imported: its children begin at once, where spawned ones import for ten seconds each.

vLLM's own API server can do the same for GPUs (`vllm/entrypoints/launchers/api_server/entry.py`); on the CPU, and in a
Ray actor, it spawns. The server starts before there is a model, and runs no code but imports, so a fork of it is as good
as a new process. Private seam: the one `ForkServer` of Python 3.11's multiprocessing.
"""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any, Final

import wrapt

ADDRESS: Final = "PHASEBUS_FORKSERVER"
"""The variable with the address of the server, for the processes of an engine."""

_PRELOADED: Final = (
    "vllm.v1.engine.async_llm",
    "vllm.v1.engine.core",
    "vllm.v1.executor.multiproc_executor",
    "vllm.v1.worker.cpu_worker",
    "vllm.model_executor.models.registry",
    "phasebus.initializer.engines.vllm.inside.hooks",
)


STARTING_PROCESSES: Final = (
    "vllm.v1.engine.coordinator",
    "vllm.v1.engine.utils",
    "vllm.v1.executor.multiproc_executor",
)
"""The modules of vLLM that start processes, by the context that their `get_mp_context` returns."""


class _Process(ForkServerProcess):
    """A process of the server that begins with the environment of the process that started it."""

    def start(self) -> None:
        self._environment = dict(os.environ)
        super().start()

    def _bootstrap(self, *args: Any, **kwargs: Any) -> Any:
        os.environ.clear()
        os.environ.update(self._environment)
        return super()._bootstrap(*args, **kwargs)  # type: ignore[misc]


class _Context(ForkServerContext):
    Process = _Process


def start_server() -> None:
    """Start the server, which imports vLLM beside this process."""
    multiprocessing.set_forkserver_preload(list(_PRELOADED))
    forkserver.ensure_running()
    os.environ[ADDRESS] = str(_server()._forkserver_address)  # noqa: SLF001


def use_server() -> None:
    """Make vLLM start its processes through the server, if there is one."""
    if not os.environ.get(ADDRESS):
        return
    server = _server()
    if server._forkserver_pid is None:  # noqa: SLF001  # a child of the server: it has the address, and must not start another server
        if server._forkserver_address != os.environ[ADDRESS]:  # noqa: SLF001
            return
        server.ensure_running = lambda: None
    context = _Context()
    for module in STARTING_PROCESSES:
        wrapt.register_post_import_hook(lambda found: setattr(found, "get_mp_context", lambda: context), module)


def _server() -> Any:
    return forkserver._forkserver  # noqa: SLF001  # the one of this process
