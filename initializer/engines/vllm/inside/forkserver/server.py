"""The fork server's loop: it forks a process for each request, and reports its process id and its exit code.

Private seam: how Python 3.11's multiprocessing runs a process in a fork (`forkserver._serve_one`, `spawn._main`).
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterable, Mapping
from multiprocessing import forkserver, resource_tracker, spawn, util
from typing import Any, Final, NoReturn

from phasebus.allocator import return_free_memory
from phasebus.initializer.engines.vllm.inside.compile_times import after_compilation, inherited
from phasebus.initializer.engines.vllm.inside.forkserver import channel, remainder
from phasebus.initializer.engines.vllm.inside.forkserver.imported import LIBRARY_PATH, record_environment
from phasebus.initializer.engines.vllm.inside.forkserver.loggers import limit_logger_visits
from phasebus.initializer.engines.vllm.inside.forkserver.module_walks import limit_module_walks
from phasebus.initializer.engines.vllm.inside.forkserver.safety import flush_output, touched_device

_LEFT_TO_OWNER = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that a terminal or a supervisor sends to all processes of a command. The server ends when its owner has ended."""

_TERMINATION_SECONDS = 5.0

TITLE: Final = "phasebus fork server"
"""The title of its process."""

_status: int | None = None


def confirm_begun() -> bool:
    """Report that the requested process runs; return whether this process is a fork of a server."""
    if _status is None:
        return False
    channel.write_number(_status, channel.BEGUN)
    return True


class ForkServer:
    """A single-threaded process that has vLLM imported, and forks.

    Args:
        requests: Its end of the socket.
        owner: A descriptor that is readable once the process it belongs to has ended (a pidfd).
        ends_forks: Whether its forks end with the owner.
    """

    def __init__(self, requests: socket.socket, owner: int, *, ends_forks: bool = False) -> None:
        self._ends_forks = ends_forks
        self._requests = requests
        self._owner = owner
        self._status: dict[int, int] = {}
        self._ended, ended = os.pipe()
        self._unused = [self._ended, ended, owner, requests.fileno()]
        for descriptor in (self._ended, ended):
            os.set_blocking(descriptor, False)
        self._handlers = {each: signal.signal(each, signal.SIG_IGN) for each in _LEFT_TO_OWNER}
        self._handlers[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        self._mask = signal.pthread_sigmask(signal.SIG_SETMASK, ())
        self._wakeup = signal.set_wakeup_fd(ended, warn_on_full_buffer=False)

    def run(self, preloaded: Iterable[str]) -> NoReturn:
        """Import modules, and serve until the owner ends; requests are served between two imports."""
        for name in preloaded:
            end = after_compilation(inherited.add_compilation)
            with contextlib.suppress(Exception):  # a version without it; a fork reports it, if it is needed
                importlib.import_module(name)
            end()
            self._serve(0)
        if touched_device() is not None:
            os._exit(1)
        while True:
            self._serve(None)

    def _serve(self, milliseconds: int | None) -> None:
        waiting = select.poll()
        for descriptor in (self._owner, self._ended, self._requests.fileno()):
            waiting.register(descriptor, select.POLLIN)
        for descriptor, _ in waiting.poll(milliseconds):
            if descriptor == self._owner:
                self._end()
            if descriptor == self._ended:
                self._reap()
            else:
                self._fork()

    def _end(self) -> NoReturn:
        """End, and the forks with it if they are to: by SIGTERM, or by SIGKILL after a while."""
        for number, seconds in ((signal.SIGTERM, _TERMINATION_SECONDS), (signal.SIGKILL, 0.0)):
            for pid in self._status if self._ends_forks else ():
                os.kill(pid, number)  # it has not been waited for, so the number is still its own
            deadline = time.monotonic() + seconds
            while self._ends_forks and self._status and (left := deadline - time.monotonic()) > 0:
                select.select([self._ended], [], [], left)
                self._reap()
        os._exit(0)

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._ended, 65536)
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if (status := self._status.pop(ended[0], None)) is not None:
                    channel.write_number(status, os.waitstatus_to_exitcode(ended[1]))
                    os.close(status)

    def _fork(self) -> None:
        try:
            message, descriptors, _, _ = socket.recv_fds(
                self._requests, 16, channel.MAX_DESCRIPTORS, socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
            )
        except OSError:  # no request, or one that has gone
            return
        if message == channel.RELEASE and not self._ends_forks:
            self._release()
        if len(descriptors) < 3:  # no request, or one of which this process has no number left for the rest
            for descriptor in descriptors:
                os.close(descriptor)
            return
        data, status, tracker, *others = descriptors
        flush_output()
        _share_memory()
        try:
            pid = os.fork()
        except OSError:  # no memory, or too many processes: its client reads the end of the pipe
            pid = -1
        if pid == 0:
            self._become(data, status, tracker, others)
        if pid > 0:
            channel.write_number(status, pid)
            self._status[pid] = status
        else:
            os.close(status)
        for descriptor in (data, tracker, *others):
            os.close(descriptor)

    def _release(self) -> None:
        """Replace this process by a small one that does what is left to do: to report exit codes, and to end with the owner."""
        descriptors = (self._owner, *self._status.values())
        numbers = [self._owner, *(number for each in self._status.items() for number in each)]
        # its title is not that of a file, so Python cannot find its library by it
        arguments = [TITLE, "-S", "-s", "-P", remainder.__file__, *map(str, numbers)]
        environment = {"PYTHONHOME": f"{sys.base_prefix}:{sys.base_exec_prefix}"}
        if folders := os.environ.get(LIBRARY_PATH):  # some Pythons find their own library there alone
            environment[LIBRARY_PATH] = folders
        try:
            for each in descriptors:
                os.set_inheritable(each, True)
            os.execve(os.fsdecode(spawn.get_executable()), arguments, environment)  # noqa: S606
        except OSError:  # no memory: it stays as it is
            for each in descriptors:
                os.set_inheritable(each, False)

    def _become(self, data: int, status: int, tracker: int, others: list[int]) -> NoReturn:
        """Run the process that is described by what arrives at `data`, and end as it ends."""
        global _status  # noqa: PLW0603  # a fact about the process
        code = 1
        try:
            inherited.note_fork()
            record_environment()  # with what the server's imports have set
            signal.set_wakeup_fd(self._wakeup)
            _restore(self._handlers)
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
            for descriptor in (*self._unused, *self._status.values()):
                os.close(descriptor)
            _status = status  # it stays open: were the server to die, its clients would take this process for dead
            forkserver._forkserver._inherited_fds = others  # type: ignore[attr-defined]  # noqa: SLF001
            resource_tracker._resource_tracker._fd = tracker  # type: ignore[attr-defined]  # noqa: SLF001
            util._close_stdin()  # type: ignore[attr-defined]  # noqa: SLF001
            code = spawn._main(data, os.dup(data))  # noqa: SLF001
        except EOFError:
            pass  # its client has given up
        except BaseException:  # noqa: BLE001  # it is the whole process
            sys.excepthook(*sys.exc_info())
            sys.stderr.flush()
        finally:
            os._exit(code)


def _share_memory() -> None:
    """Let a fork write to few pages of this process.

    Its collector does not visit what this process has, which would take up to a second each time.
    """
    with contextlib.suppress(Exception):  # then the fork copies more
        limit_logger_visits()
        limit_module_walks()
    gc.freeze()
    return_free_memory()


def _restore(handlers: Mapping[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, signal.SIG_DFL if handler is None else handler)
