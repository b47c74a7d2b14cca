"""How a fork server begins: as a fork of a vLLM command that has just imported all it needs, or as a process of its own."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import importlib
import logging
import os
import select
import signal
import socket
import stat
import sys
from collections.abc import Iterator, Sequence
from multiprocessing import spawn, util
from pathlib import Path
from typing import Final, NoReturn

from phasebus.allocator import return_free_memory
from phasebus.initializer.engines.vllm.inside import compile_times
from phasebus.initializer.engines.vllm.inside.forkserver import channel, imported, safety
from phasebus.initializer.engines.vllm.inside.forkserver.loggers import limit_logger_visits
from phasebus.initializer.engines.vllm.inside.forkserver.module_walks import limit_module_walks
from phasebus.initializer.engines.vllm.inside.forkserver.server import TITLE, ForkServer
from phasebus.initializer.ray.process_age import creation_time_ns

logger = logging.getLogger("phasebus.engine")

_PLUGIN: Final = "phasebus.initializer.engines.vllm.inside.plugin"

_PRELOADED: Final = (
    "vllm.model_executor.models.registry",
    "vllm.v1.engine.core",
    "vllm.v1.core.sched.scheduler",
    "vllm.v1.executor.multiproc_executor",
    "vllm.v1.engine.async_llm",
    "vllm.model_executor.layers.quantization.online.base",
    "vllm.model_executor.layers.quantization.compressed_tensors.utils",
    _PLUGIN,
)

_FRONT_END: Final = (
    "vllm.entrypoints.cli.main",
    "vllm.entrypoints.cli.openai",
    "vllm.entrypoints.cli.serve",
    "vllm.entrypoints.cli.launch",
    "vllm.entrypoints.cli.benchmark.main",
    "vllm.entrypoints.cli.collect_env",
    "vllm.entrypoints.cli.download_kernels",
    "vllm.entrypoints.cli.preload",
    "vllm.entrypoints.cli.run_batch",
    "vllm.entrypoints.cli.snapshot",
    "vllm.entrypoints.openai.api_server",
    "vllm.entrypoints.launchers.app",
    "vllm.renderers.hf",
    "vllm.entrypoints.serve.instrumentator.metrics",
    "vllm.entrypoints.serve.tokenize.api_router",
    "vllm.entrypoints.serve.lora.api_router",
    "vllm.entrypoints.serve.elastic_ep.api_router",
    "vllm.entrypoints.generate.api_router",
    "vllm.entrypoints.generate.generative_scoring.api_router",
    "vllm.entrypoints.generate.structured_decisions.api_router",
    "vllm.entrypoints.openai.models.api_router",
    "vllm.entrypoints.openai.chat_completion.api_router",
    "vllm.entrypoints.openai.completion.api_router",
    "vllm.entrypoints.openai.responses.api_router",
    "vllm.entrypoints.anthropic.api_router",
    "vllm.entrypoints.cohere.api_router",
    "vllm.entrypoints.scale_out.render.api_router",
    "vllm.entrypoints.scale_out.derender.api_router",
    "vllm.entrypoints.scale_out.token_in_token_out.api_router",
    "uvicorn.protocols.http.auto",
    "uvicorn.protocols.websockets.auto",
    "uvicorn.lifespan.on",
)
"""What the commands of vLLM 0.32 import after their start, as `tests/faults/node/test_forkserver_restart.py` prints it."""

_CHECK_SECONDS = 10.0
_PR_SET_PDEATHSIG: Final = 1


_owner: int | None = None


def release_server() -> None:
    """Let this process's fork server release its memory: the engine runs. A server of another process is left alone."""
    if _owner == os.getpid():
        channel.release()


def fork_server() -> None:
    """Make a fork of this process its fork server, if that is safe; otherwise log one line, and leave it as it is.

    The process is a command of vLLM's that has imported what its front end needs, and runs one thread.
    """
    try:
        reason = safety.missing_call() or safety.reason_against_forking() or _fork()
    except Exception as error:  # noqa: BLE001  # the engine comes first
        reason = f"{type(error).__name__}: {error}"
    if reason is not None:
        channel.use(None)
        logger.warning("phasebus: no fork server, so vLLM spawns its processes: %s", reason)


def _fork() -> str | None:
    """Fork; return why the fork is of no use, or None."""
    sys.stdout.flush()
    sys.stderr.flush()
    requests, clients = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    result, report = os.pipe()
    owner = os.pidfd_open(os.getpid())
    importlib.import_module(_PLUGIN)  # this process and all forks need it next
    with contextlib.suppress(Exception):  # it is counted later, then, which copies memory
        compile_times.inherited.count_before_fork(creation_time_ns())
    imported.record_environment()
    share_heap()
    if (server := os.fork()) == 0:
        _serve(requests, clients, owner, result, report)
    requests.close()
    os.close(report)
    os.close(owner)
    is_used = False
    try:
        reason = safety.reason_after_forking() or _answer(result)
        is_used = reason is None
    finally:
        os.close(result)
        if not is_used:
            clients.close()
            _kill(server)
    if is_used:
        _use(clients)
    return reason


def _kill(server: int) -> None:
    """End a fork that is of no use: it would keep its memory as long as this process lives."""
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)


def share_heap() -> None:
    """Make this process ready to be forked: its memory is shared until it is written to.

    The collector, of it and of its forks, writes to no object that exists now; a configuration of logging, and `inspect`, write
    to few. Free memory is returned to the system, if the C library can do that.
    """
    with contextlib.suppress(Exception):  # then more is copied
        limit_logger_visits()
        limit_module_walks()
    gc.freeze()
    return_free_memory()


def open_channel() -> tuple[socket.socket, socket.socket, int]:
    """Use a fork server that has not begun yet: requests wait for it.

    Returns:
        The server's end of the socket, its clients' end, and the pidfd of this process; the first and the last are the
        caller's to close once the server has them.

    Raises:
        ForkError: This Python, or its system, lacks a call that is needed.
        OSError: There are too many descriptors.
    """
    if (reason := safety.missing_call()) is not None:
        raise channel.ForkError(reason)
    requests, clients = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    owner = os.pidfd_open(os.getpid())
    imported.record_environment(executes_server=True)
    _use(clients)
    return requests, clients, owner


def start_server() -> None:
    """Start a fork server as a process of its own, which imports vLLM beside this process; it ends with this process.

    If it cannot be started, a line says why, and vLLM spawns its processes.
    """
    try:
        start_process(*open_channel())
    except (channel.ForkError, OSError) as error:
        channel.use(None)
        logger.warning("phasebus: no fork server, so vLLM spawns its processes: %s", error)


def start_process(requests: socket.socket, clients: socket.socket, owner: int) -> None:
    """Start the process of a server, and close what only it needs; the arguments are those that `open_channel` returns.

    Raises:
        OSError: It cannot be started; a request fails, then, and its process is spawned.
    """
    descriptors = [requests.fileno(), clients.fileno(), owner]
    program = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import main; main({descriptors})"
    python = spawn.get_executable()
    flags = util._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001
    try:
        util.spawnv_passfds(python, [python, *flags, "-c", program], descriptors)  # type: ignore[arg-type]
    finally:
        requests.close()
        os.close(owner)


def _use(clients: socket.socket) -> None:
    """Use a server that was started by this process."""
    global _owner  # noqa: PLW0603  # a fact about the process
    _owner = os.getpid()
    channel.use(clients)


def main(descriptors: Sequence[int], *, ends_forks: bool = False) -> NoReturn:
    """Run a fork server as this whole process.

    Args:
        descriptors: Its end of the socket, its clients' end, and the pidfd of its owner.
        ends_forks: Whether its forks end with its owner.
    """
    requests, clients, owner = descriptors
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    imported.record_environment()
    channel.use(socket.socket(fileno=clients))
    name_process()
    ForkServer(socket.socket(fileno=requests), owner, ends_forks=ends_forks).run(_preloaded())


def _answer(result: int) -> str | None:
    """Return what the fork reports of itself; None if it is well."""
    waiting = select.poll()
    waiting.register(result, select.POLLIN)
    if not waiting.poll(_CHECK_SECONDS * 1000):
        return "it does not answer"
    return os.read(result, 1000).decode() or None


def _serve(requests: socket.socket, clients: socket.socket, owner: int, result: int, report: int) -> NoReturn:
    """Serve in a fork of the command; never return to the code that it was forked in."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        os.close(result)
        _close_inherited({requests.fileno(), clients.fileno(), owner, report})
        channel.use(clients)
        forking = ForkServer(requests, owner)
        _forget_plugins()
        name_process()
        reason = safety.touched_device()
        os.write(report, (reason or "").encode()[:1000])
        os.close(report)
        if reason is None:
            forking.run(_preloaded())
    finally:
        os._exit(1)


def _close_inherited(kept: set[int]) -> None:
    """Close what the command was started with, as in a spawned process; Python's own descriptors are closed by `exec` only."""
    for number in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        if number <= 2 or number in kept:  # the standard streams
            continue
        with contextlib.suppress(OSError):
            mode, flags = os.fstat(number).st_mode, fcntl.fcntl(number, fcntl.F_GETFD)
            kind = stat.S_ISREG(mode) or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
            if kind and not flags & fcntl.FD_CLOEXEC:
                os.close(number)


def _forget_plugins() -> None:
    """Make each fork load vLLM's plugins, as a spawned process does: this process is forked while they are being loaded."""
    if (plugins := sys.modules.get("vllm.plugins")) is not None:
        plugins.plugins_loaded = False  # type: ignore[attr-defined]


def front_end_modules() -> Iterator[str]:
    """Yield the modules that a whole vLLM command needs, front end included."""
    yield from ("torch", "transformers", "vllm")
    yield from _FRONT_END
    yield from _preloaded()


def _preloaded() -> Iterator[str]:
    """Yield the modules that the engine's processes need, those of the platform's worker last."""
    yield from _PRELOADED
    yield from _worker_modules()


def _worker_modules() -> Sequence[str]:
    """Return the modules of the platform's worker; vLLM has been imported."""
    platforms = sys.modules.get("vllm.platforms")
    platform = getattr(platforms, "current_platform", None)
    if platform is None:
        return ()
    if platform.is_cpu():
        return ("vllm.v1.worker.cpu_worker", "vllm.v1.attention.backends.cpu_attn")
    return ("vllm.v1.worker.gpu_worker",) if platform.is_cuda_alike() else ()


def name_process(title: str = TITLE) -> None:
    """Show `title` as this process's command line."""
    try:
        import setproctitle
    except ImportError:
        return
    setproctitle.setproctitle(title)
