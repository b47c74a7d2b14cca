"""A fork server that has vLLM imported: its children begin at once, where spawned ones import for ten seconds each.

vLLM's own API server can do the same for GPUs (`vllm/entrypoints/launchers/api_server/entry.py`); on the CPU, and in an
actor of Ray's, it spawns. The server is begun before there is a model, and never runs anything itself, so a fork of it
is as good as new. Private seams of Python 3.11's multiprocessing: the module's one `ForkServer`.
"""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any, Final

import wrapt

ADDRESS: Final = "PHASEBUS_FORKSERVER"
"""The variable that tells the processes of an engine that there is such a server, and where."""

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
"""The modules of vLLM that start processes, and ask their `get_mp_context` how."""


class _Process(ForkServerProcess):
    """A process of the server's that begins with the environment of whoever started it, not with the server's."""

    def start(self) -> None:
        self._environment = dict(os.environ)
        super().start()

    def _bootstrap(self, *args: Any, **kwargs: Any) -> Any:
        os.environ.clear()
        os.environ.update(self._environment)
        return super()._bootstrap(*args, **kwargs)  # type: ignore[misc]


class _Context(ForkServerContext):
    Process = _Process


def begin() -> None:
    """Start the server, which imports vLLM beside this process."""
    multiprocessing.set_forkserver_preload(list(_PRELOADED))
    forkserver.ensure_running()
    os.environ[ADDRESS] = str(_server()._forkserver_address)  # noqa: SLF001


def adopt() -> None:
    """Have vLLM start its processes through the server, if there is one."""
    if not os.environ.get(ADDRESS):
        return
    server = _server()
    if server._forkserver_pid is None:  # noqa: SLF001  # a child of the server: it knows the address, and must not start another
        if server._forkserver_address != os.environ[ADDRESS]:  # noqa: SLF001
            return
        server.ensure_running = lambda: None
    context = _Context()
    for module in STARTING_PROCESSES:
        wrapt.register_post_import_hook(lambda found: setattr(found, "get_mp_context", lambda: context), module)


def _server() -> Any:
    return forkserver._forkserver  # noqa: SLF001  # the one of this process
