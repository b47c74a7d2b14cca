"""Running a command as if it had been started in place of this process.

The command has the same process group, terminal, standard streams, inherited descriptors, working directory, signal
dispositions and signal mask that this process was started with. Linux only.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NoReturn, TypeVar

import anyio.to_thread

from phasebus.bus import PhasebusError

R = TypeVar("R")

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
_UNKNOWN_COMMAND, _NOT_EXECUTABLE = 127, 126  # exit codes of POSIX shells
_INIT_PID = 1


class CommandNotStartedError(PhasebusError):
    """Raised when a command cannot be executed.

    Attributes:
        exit_code: The exit code that a shell reports for it: 127 for an unknown command, else 126.
    """

    def __init__(self, program: str, error: OSError) -> None:
        unknown = error.errno in (errno.ENOENT, errno.ENOTDIR)
        self.exit_code = _UNKNOWN_COMMAND if unknown else _NOT_EXECUTABLE
        hint = "; is it installed, and on the PATH?" if unknown and os.sep not in program else ""
        super().__init__(f"cannot execute {printable(program)!r}: {error.strerror}{hint}")


def printable(text: str) -> str:
    """Return `text` without characters that cannot be encoded, such as bytes of a name that is not UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class ChildProcess:
    """A command as a child process. The object is made in the main thread, before any other thread is started.

    From then on the forwarded signals are blocked in all threads of this process, and a thread of this object receives
    them. Before the command is started, a signal that ends a process ends this one.

    Raises:
        RuntimeError: No thread can be started.

    Attributes:
        pid: The process id; None before the start.
        returncode: None before the end; then the exit code, or the negative number of the signal that ended it.
    """

    def __init__(self) -> None:
        self._mask = original_mask()
        self._forwarded = {each for each in FORWARDED if signal.getsignal(each) != signal.SIG_IGN} - self._mask
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would lose the exit code
        signal.pthread_sigmask(signal.SIG_BLOCK, self._forwarded)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self.pid: int | None = None
        self.returncode: int | None = None
        self._spawned = threading.Event()
        # Both before the command is started: where no thread can be had, it is not to run unattended.
        threading.Thread(target=self._reap, name="phasebus reaper", daemon=True).start()
        threading.Thread(target=self._forward, name="phasebus signals", daemon=True).start()

    def start(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start the command.

        Raises:
            CommandNotStartedError: It cannot be executed.
        """
        path = executable(arguments[0])
        with self._lock:
            try:
                self.pid = self._spawn(path, arguments, environment)
            except OSError as error:
                raise CommandNotStartedError(arguments[0], error) from error
        self._spawned.set()

    def _spawn(self, path: str, arguments: Sequence[str], environment: Mapping[str, str]) -> int:
        return with_shell_fallback(
            lambda path, arguments: os.posix_spawn(
                path,
                arguments,
                environment,
                setsigmask=self._mask,
                setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),  # which Python ignores
            ),
            path,
            arguments,
        )

    def send_signal(self, number: int) -> None:
        """Send the command a signal, if it runs."""
        with self._lock:
            if self.pid is not None and self.returncode is None:
                os.kill(self.pid, number)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the command's end, for `seconds` at most; return whether it has ended."""
        return self._ended.wait(seconds)

    async def wait_async(self, seconds: float | None = None) -> bool:
        """Wait as `wait` does, and let the event loop run meanwhile."""
        return await anyio.to_thread.run_sync(self._ended.wait, seconds, abandon_on_cancel=True)

    def exit_like_it(self) -> NoReturn:
        """End this process as the command has ended: with its exit code, or by the same signal."""
        code = self.returncode or 0
        if code < 0:
            if os.getpid() != _INIT_PID and threading.current_thread() is threading.main_thread():
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the command has dumped core, if anything has
                if -code != signal.SIGKILL:
                    signal.signal(-code, signal.SIG_DFL)
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {-code})
                os.kill(os.getpid(), -code)
            code = 128 - code
        os._exit(code)

    def _reap(self) -> None:
        """Wait for the command's end; as a container's first process, also reap every orphan."""
        self._spawned.wait()
        assert self.pid is not None  # noqa: S101  # it is set when the command has been started
        while os.getpid() == _INIT_PID:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            if ended is None or ended.si_pid == self.pid:
                break
            os.waitpid(ended.si_pid, os.WNOHANG)
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        with self._lock:  # until here, its pid cannot belong to another process
            _, status = os.waitpid(self.pid, 0)
            self.returncode = os.waitstatus_to_exitcode(status)
        self._ended.set()

    def _forward(self) -> None:
        while True:
            received = signal.sigwaitinfo(self._forwarded)
            number = received.si_signo
            with self._lock:
                if self.pid is None and number in _ENDING:
                    os._exit(128 + number)  # nothing has been started
                if self.returncode is not None and number in _ENDING:
                    break
                if self.pid is not None and self.returncode is None and received.si_code != _SENT_BY_KERNEL:
                    os.kill(self.pid, number)
        self.exit_like_it()  # it has ended, and this process is asked not to wait for observers


def _execute(command: tuple[str, list[str]], environment: Mapping[str, str]) -> None:
    os.execve(*command, environment)  # noqa: S606  # the user's own command


def replace_this_process(arguments: Sequence[str]) -> NoReturn:
    """Execute a command in place of this process.

    Raises:
        CommandNotStartedError: It cannot be executed.
    """
    path, environment = executable(arguments[0]), original_environment()
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, original_mask())
    try:
        with_shell_fallback(lambda *command: _execute(command, environment), path, arguments)
    except OSError as error:
        raise CommandNotStartedError(arguments[0], error) from error
    raise AssertionError  # execve does not return


@cache
def original_mask() -> set[int]:
    """Return the signals that this thread blocked when this was first called: those that the process was started with."""
    return set(signal.pthread_sigmask(signal.SIG_BLOCK, ()))


def original_environment() -> dict[str, str]:
    """Return the environment that this process was started with.

    Python adds LC_CTYPE where the locale is that of C (PEP 538).
    """
    environment = dict(os.environ)
    try:
        given = Path("/proc/self/environ").read_bytes()
    except OSError:
        return environment
    if not any(variable.startswith(b"LC_CTYPE=") for variable in given.split(b"\0")):
        environment.pop("LC_CTYPE", None)
    return environment


def with_shell_fallback(execute: Callable[[str, list[str]], R], path: str, arguments: Sequence[str]) -> R:
    """Call `execute`; for a script without "#!" again with the shell, as execvp(3) does."""
    try:
        return execute(path, list(arguments))
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
        return execute("/bin/sh", ["sh", path, *arguments[1:]])


def executable(program: str) -> str:
    """Return the path of `program`: itself if it has a slash, else from the PATH or from beside this Python.

    Raises:
        CommandNotStartedError: There is no such command.
    """
    if os.sep in program:
        return program
    beside_python = str(Path(sys.executable).parent)  # where `vllm` is, if the environment is not activated
    search: Callable[[int], str | None] = lambda mode: (  # noqa: E731
        shutil.which(program, mode) or shutil.which(program, mode, path=beside_python)
    )
    if (found := search(os.F_OK | os.X_OK)) is not None:
        return found
    number = errno.EACCES if search(os.F_OK) is not None else errno.ENOENT
    raise CommandNotStartedError(program, OSError(number, os.strerror(number)))
