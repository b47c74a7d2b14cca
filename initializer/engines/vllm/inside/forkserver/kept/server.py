"""The loop of a fork server that stays: it imports vLLM, front end included, and forks a process for each command.

It runs one thread, opens no device, and keeps nothing of a command: the environment, the arguments and the descriptors of a
request are read in the fork. It ends at `stop`, with its owner, after an idle time, or if it is not safe to fork.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

from phasebus.initializer.engines.vllm.inside.forkserver import begin, safety
from phasebus.initializer.engines.vllm.inside.forkserver.kept import environment, front_end, messages
from phasebus.initializer.engines.vllm.inside.forkserver.kept.address import Address, is_same_user
from phasebus.initializer.engines.vllm.inside.forkserver.kept.fingerprint import fingerprint
from phasebus.initializer.engines.vllm.inside.forkserver.kept.imported_files import ImportedFiles
from phasebus.initializer.engines.vllm.inside.forkserver.kept.request import Request
from phasebus.initializer.engines.vllm.inside.forkserver.kept.running import RunningCommands
from phasebus.initializer.engines.vllm.inside.forkserver.kept.shared_state import SharedState
from phasebus.initializer.engines.vllm.inside.import_times import ImportTimes

imported_modules: frozenset[str] = frozenset()
"""The modules that the server has imported; a fork imports the others itself."""

logger = logging.getLogger("phasebus.engine")

TITLE: Final = "phasebus kept fork server"
"""The title of its process."""

_REQUEST_SECONDS: Final = 5.0
_IGNORED: Final = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


class KeptServer:
    """A fork server that serves one start after another.

    Args:
        listener: Where clients connect.
        address: The socket's folder, whose lock this process holds.
        lock: The lock's descriptor.
        owner: The descriptor that becomes readable when it is to end; None for none.
        idle_seconds: How long it waits for a command before it ends, in seconds; None for ever.
    """

    def __init__(
        self, listener: socket.socket, address: Address, lock: int, owner: int | None, idle_seconds: float | None
    ) -> None:
        self._listener: socket.socket | None = listener
        self._address = address
        self._lock = lock
        self._owner = owner
        self._idle_seconds = idle_seconds
        self._since, self._last_used = time.time(), time.monotonic()
        self._fingerprint = fingerprint(os.environ)
        self._imported = False
        self._files, self._shared = ImportedFiles(), SharedState()
        self._forks = 0
        self._imports, self._import_seconds = ImportTimes(), 0.0
        self._waiting: list[Request] = []
        self._commands = RunningCommands()
        self._wakeup, wakeup = os.pipe()
        for descriptor in (self._wakeup, wakeup):
            os.set_blocking(descriptor, False)
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        self._stopping = False
        signal.signal(signal.SIGTERM, self._stop_at_signal)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        if owner is not None:  # a pipe whose other end is closed sends a signal, also during a long import
            signal.signal(signal.SIGIO, self._stop_at_signal)
            fcntl.fcntl(owner, fcntl.F_SETOWN, os.getpid())
            fcntl.fcntl(owner, fcntl.F_SETFL, fcntl.fcntl(owner, fcntl.F_GETFL) | os.O_ASYNC)
        self._own = [self._wakeup, wakeup, lock, listener.fileno(), *([] if owner is None else [owner])]

    def run(self) -> Callable[[], NoReturn]:
        """Import, and serve; return in each fork, with what makes it the command."""
        global imported_modules  # noqa: PLW0603  # a fact about the process, which its forks inherit
        begin.name_process(TITLE)
        self._address.write_state(self._lock, imported=False)
        environment.record_reads()
        for name in begin.front_end_modules():
            began = time.monotonic()
            with self._shared.recording(), self._imports.measuring(), contextlib.suppress(Exception):
                importlib.import_module(name)  # a version without it; a fork that needs it reports it
            self._import_seconds += time.monotonic() - began
            self._serve(0)
        environment.stop_recording()
        self._check()
        imported_modules = frozenset(sys.modules)
        self._files = ImportedFiles()
        gc.collect()
        begin.share_heap()
        self._address.write_state(self._lock, imported=True)
        self._imported = True
        self._last_used = time.monotonic()
        while True:
            while self._waiting:
                if (become := self._fork(self._waiting.pop(0))) is not None:
                    return become
            self._serve(None)

    def _check(self) -> None:
        """End this process unless it is safe to fork, and what it has imported is what is installed."""
        own = set(self._own).union(*(each.numbers for each in self._waiting))  # a command may inherit any
        reason = safety.reason_against_forking() or safety.reason_after_trial_fork() or self._shared.found(own)
        if reason is None and fingerprint(os.environ) != self._fingerprint:
            reason = "a package was installed meanwhile"
        if reason is not None:
            for request in self._waiting:
                request.refuse(reason)
            logger.error("no fork server: %s", reason)
            self._address.remove()
            os._exit(1)

    def _serve(self, milliseconds: int | None) -> None:
        """Handle what has arrived; wait for it if `milliseconds` is None."""
        waiting = select.poll()
        waiting.register(self._wakeup, select.POLLIN)
        if self._listener is not None:
            waiting.register(self._listener, select.POLLIN)
        if self._owner is not None:
            waiting.register(self._owner, select.POLLIN)
        clients = self._commands.register_clients(waiting)
        ready = waiting.poll(self._patience() if milliseconds is None else milliseconds)
        for descriptor, _ in sorted(ready, key=lambda each: each[0] == self._wakeup):  # what has ended is released last
            if descriptor == self._wakeup:
                self._reap()
            elif descriptor == self._owner:
                self._owner = None
                self._stopping = True
            elif descriptor in clients:
                clients[descriptor].end()
            elif self._listener is not None:
                self._accept(self._listener)
        idle = self._patience()
        if self._stopping or (self._imported and idle is not None and idle <= 0):
            self._drain()

    def _patience(self) -> int | None:
        """Return after how many milliseconds it has been idle for too long; None for never."""
        if self._idle_seconds is None or self._commands or self._waiting:
            return None
        return max(0, int((self._last_used + self._idle_seconds - time.monotonic()) * 1000))

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        request = Request(connection)
        try:
            if is_same_user(connection) and self._handle(request):
                return
        except Exception as error:  # noqa: BLE001  # of this request alone
            _refuse(request, error)
        request.close()

    def _handle(self, request: Request) -> bool:
        """Handle a request that has been accepted; return whether it waits for a fork."""
        try:
            message, request.descriptors = messages.receive(request.connection, time.monotonic() + _REQUEST_SECONDS)
        except messages.MessageError:
            return False
        wanted = message.get("request")
        if wanted == "fork" and request.descriptors:
            reason = self._reason_against(message.get("fingerprint"))
            slower = safety.reason_against_priority(message.get("priority"))
            if reason is None and slower is None:
                self._waiting.append(request)
                return True
            request.refuse(reason or slower or "", outdated=reason is not None)
        elif wanted in ("stop", "status"):
            self._stopping |= wanted == "stop"
            messages.send(request.connection, self._state())
        elif wanted == "variables" and self._imported:
            messages.send(request.connection, environment.imported_with())
        return False

    def _reason_against(self, requested: object) -> str | None:
        """Return why what has been imported is not what a command would import; None if it is."""
        if requested != self._fingerprint:
            return "vLLM or a package was installed or edited"
        edited = self._files.changed()
        return None if edited is None else f"{edited} was edited"

    def _state(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "since": self._since,
            "imported": self._imported,
            "forks": self._forks,
            "commands": list(self._commands.pids),
            "idle_seconds": self._idle_seconds,
            "fingerprint": self._fingerprint,
            "edited_file": self._files.changed(),
            "imports": self._imports.longest(),
            "import_seconds": round(self._import_seconds, 3),
        }

    def _fork(self, request: Request) -> Callable[[], NoReturn] | None:
        """Fork a process for a request; return in the fork what makes it the command."""
        pid = -1 if messages.has_gone(request.connection) else self._fork_process(request)
        if pid == 0:
            return lambda: front_end.become(request.connection, request.descriptors)
        request.close_descriptors()
        try:
            if pid > 0:
                self._commands.add(pid, request.connection)
                self._forks += 1
                return None
        except OSError as error:
            _refuse(request, error)
        request.connection.close()
        return None

    def _fork_process(self, request: Request) -> int:
        safety.flush_output()
        try:
            pid = os.fork()
        except OSError as error:  # no memory, or too many processes
            request.refuse(f"it cannot fork: {error.strerror}")
            return -1
        if pid == 0:
            try:
                self._leave()
            except BaseException:  # noqa: BLE001  # it must not serve; its client executes the command
                os._exit(1)
        return pid

    def _leave(self) -> None:
        """Give up, in a fork, what belongs to the server."""
        signal.set_wakeup_fd(-1)
        for number in (*_IGNORED, signal.SIGTERM, signal.SIGCHLD, signal.SIGIO):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._commands.close()
        for other in self._waiting:
            other.close()
        for descriptor in self._own:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._address.close()
        if self._listener is not None:
            self._listener.detach()

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wakeup, 65536)
        if self._commands.reap():
            self._last_used = time.monotonic()

    def _stop_at_signal(self, *_: object) -> None:
        self._stopping = True
        if not self._imported:  # nothing was forked yet, and the rest of an import would take seconds
            self._address.remove()
            os._exit(0)

    def _drain(self) -> None:
        """Accept no request any more; end once no command runs."""
        if self._listener is not None:
            closed = (self._lock, self._listener.fileno())
            self._own = [each for each in self._own if each not in closed]
            self._address.remove()
            self._listener.close()
            self._listener = None
            os.close(self._lock)
        for request in self._waiting:
            request.refuse("it has been stopped")
            request.close()
        self._waiting.clear()
        if not self._commands:
            os._exit(0)


def _refuse(request: Request, error: Exception) -> None:
    """Refuse a request for an error of this process."""
    reason = f"{type(error).__name__}: {error}"
    logger.error("a request is refused: %s", reason)
    request.refuse(reason)


def main(folder: str, listener: int, lock: int, owner: int | None, idle_seconds: float | None) -> NoReturn:
    """Run a fork server as this whole process; return from its loop in each fork, and run the command there."""
    for descriptor in (listener, lock, *([] if owner is None else [owner])):
        os.set_inheritable(descriptor, False)
    become = KeptServer(socket.socket(fileno=listener), Address(Path(folder)), lock, owner, idle_seconds).run()
    become()
