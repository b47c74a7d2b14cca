"""Running a command as if it had been started in place of this process.

The command gets the process group, terminal, standard streams, inherited descriptors, working directory, signal
dispositions and signal mask that this process was started with. Linux only.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

import anyio.to_thread

from phasebus.initializer.engines.optional import ForkedCommand
from phasebus.initializer.node.execution import (
    IGNORED_BY_PYTHON,
    CommandNotStartedError,
    executable,
    original_mask,
    with_shell_fallback,
)
from phasebus.initializer.node.orphan_guard import OrphanGuard

FORWARDED = frozenset(
    {
        signal.SIGHUP,
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGTERM,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGALRM,
        signal.SIGWINCH,
    }
)
"""Signals that are forwarded to the command, unless they were ignored when this process was started."""

_ENDING = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM})
_SENT_BY_KERNEL = 0x80  # si_code SI_KERNEL; a terminal's keys signal the whole process group
_INIT_PID = 1
_ORPHAN_SECONDS = 1.0


class ChildProcess:
    """A command as a child process. Create the object in the main thread, before any other thread is started.

    It blocks the forwarded signals in all threads of this process, and a thread of its own receives them. Before the
    command is started, a signal such as SIGTERM ends this process.

    Raises:
        RuntimeError: No thread can be started.

    Attributes:
        pid: The process id; None before the start.
        returncode: None before the end; then the exit code, or the negative number of the signal that ended it.
        stopped: Whether a signal has asked this process, and so the command, to end.
        on_stop: Called in a thread of this object when the first such signal has been forwarded.
    """

    def __init__(self) -> None:
        self._mask = original_mask()
        self._forwarded = {each for each in FORWARDED if signal.getsignal(each) != signal.SIG_IGN} - self._mask
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # if it were ignored, the exit code would be lost
        signal.pthread_sigmask(signal.SIG_BLOCK, self._forwarded)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self.pid: int | None = None
        self._forked: ForkedCommand | None = None
        self._guard: OrphanGuard | None = None
        self.returncode: int | None = None
        self.stopped = False
        self.on_stop: Callable[[], None] | None = None
        self._spawned = threading.Event()
        # Both start before the command: if no thread can be started, the command must not run without them.
        threading.Thread(target=self._reap_each, name="phasebus reaper", daemon=True).start()
        threading.Thread(target=self._forward, name="phasebus signals", daemon=True).start()

    @property
    def mask(self) -> frozenset[int]:
        """The signals that are blocked in the command."""
        return frozenset(map(int, self._mask))

    def adopt(self, forked: ForkedCommand) -> None:
        """Treat a command that a server has forked as the one that `start` starts."""
        with self._lock:
            self.pid, self._forked, self.returncode = forked.pid, forked, None
            self._ended.clear()
        self._spawned.set()
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTSTP) == signal.SIG_DFL:
            signal.signal(signal.SIGTSTP, self._suspend)  # a terminal suspends only the processes of its session

    def _suspend(self, *_: object) -> None:
        """Suspend the command and this process, and let both go on together."""
        if self._forked is None:
            os.kill(os.getpid(), signal.SIGSTOP)
            return
        self._forked.send_signal(signal.SIGSTOP, group=True)
        os.kill(os.getpid(), signal.SIGSTOP)
        self._forked.send_signal(signal.SIGCONT, group=True)

    def start(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start the command, or start it again after its end.

        Raises:
            CommandNotStartedError: It cannot be executed.
        """
        path = executable(arguments[0])
        with self._lock:
            try:
                self.pid = self._spawn(path, arguments, environment)
            except OSError as error:
                raise CommandNotStartedError(arguments[0], error) from error
            self.returncode, self._forked = None, None
            self._ended.clear()
        if os.getpid() != _INIT_PID:  # the kernel ends all processes of a container with its first one
            self._guard = OrphanGuard(self.pid)
        self._spawned.set()

    def _spawn(self, path: str, arguments: Sequence[str], environment: Mapping[str, str]) -> int:
        return with_shell_fallback(
            lambda path, arguments: os.posix_spawn(
                path,
                arguments,
                environment,
                setsigmask=self._mask,
                setsigdef=IGNORED_BY_PYTHON,
            ),
            path,
            arguments,
        )

    def send_signal(self, number: int) -> None:
        """Send the command a signal, if it runs."""
        with self._lock:
            if self.pid is not None and self.returncode is None:
                self._kill(number)

    def _kill(self, number: int, *, group: bool = False) -> None:
        if self._forked is not None:
            self._forked.send_signal(number, group=group)
        elif self.pid is not None and not group:  # a terminal signals the group by itself
            os.kill(self.pid, number)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the command ends, for `seconds` at most; return whether it has ended."""
        return self._ended.wait(seconds)

    async def wait_async(self, seconds: float | None = None) -> bool:
        """Wait like `wait`, without blocking the event loop."""
        return await anyio.to_thread.run_sync(self._ended.wait, seconds, abandon_on_cancel=True)

    def exit_like_it(self) -> NoReturn:
        """End this process as the command has ended: with its exit code, or by the same signal."""
        code = self.returncode or 0
        if code < 0:
            if os.getpid() != _INIT_PID and threading.current_thread() is threading.main_thread():
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # only the command may dump core
                if -code != signal.SIGKILL:
                    signal.signal(-code, signal.SIG_DFL)
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {-code})
                os.kill(os.getpid(), -code)
            code = 128 - code
        os._exit(code)

    def _reap_each(self) -> None:
        while True:
            self._reap()

    def _reap(self) -> None:
        """Wait for the command's end; as a container's first process, also reap every orphan."""
        self._spawned.wait()
        self._spawned.clear()
        assert self.pid is not None  # noqa: S101  # set before `_spawned`
        if (forked := self._forked) is not None:
            if os.getpid() == _INIT_PID:
                threading.Thread(
                    target=self._reap_orphans, args=(forked,), name="phasebus orphans", daemon=True
                ).start()
            code = forked.wait()
            with self._lock:
                self.returncode = code
            self._ended.set()
            return
        while os.getpid() == _INIT_PID:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            if ended is None or ended.si_pid == self.pid:
                break
            os.waitpid(ended.si_pid, os.WNOHANG)
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        if self._guard is not None:  # before the pid may be reused
            self._guard.release()
            self._guard = None
        with self._lock:  # the pid is not reused until waitpid has returned
            _, status = os.waitpid(self.pid, 0)
            self.returncode = os.waitstatus_to_exitcode(status)
        self._ended.set()

    def _reap_orphans(self, forked: ForkedCommand) -> None:
        """Reap every child while the command runs that is no child: as a container's first process."""
        while not self._ended.wait(_ORPHAN_SECONDS):
            with self._lock:
                if self._forked is not forked:
                    return
                with contextlib.suppress(ChildProcessError):
                    while os.waitpid(-1, os.WNOHANG)[0]:
                        pass

    def _forward(self) -> None:
        while True:
            received = signal.sigwaitinfo(self._forwarded)
            number = received.si_signo
            with self._lock:
                is_first = number in _ENDING and not self.stopped
                self.stopped = self.stopped or number in _ENDING
                if self.pid is None and number in _ENDING:
                    os._exit(128 + number)  # nothing has been started
                if self.returncode is not None and number in _ENDING:
                    break
                if self.pid is not None and self.returncode is None:
                    self._kill(number, group=received.si_code == _SENT_BY_KERNEL)
            if is_first and self.on_stop is not None:
                self.on_stop()
        self.exit_like_it()  # the command has ended, and the signal requests not to wait for observers
