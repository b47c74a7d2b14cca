"""Executing a command in place of this process, with the environment and signal mask that this process was started with."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NoReturn, TypeVar

from phasebus.bus import PhasebusError

R = TypeVar("R")

IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
"""Signals that Python ignores, and that a command must not ignore."""

_UNKNOWN_COMMAND, _NOT_EXECUTABLE = 127, 126  # exit codes of POSIX shells


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


def replace_this_process(arguments: Sequence[str]) -> NoReturn:
    """Execute a command in place of this process.

    Raises:
        CommandNotStartedError: It cannot be executed.
    """
    path, environment = executable(arguments[0]), original_environment()
    for number in IGNORED_BY_PYTHON:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, original_mask())
    try:
        with_shell_fallback(lambda *command: _execute(command, environment), path, arguments)
    except OSError as error:
        raise CommandNotStartedError(arguments[0], error) from error
    raise AssertionError  # execve does not return


def _execute(command: tuple[str, list[str]], environment: Mapping[str, str]) -> None:
    os.execve(*command, environment)  # noqa: S606  # the user's own command


@cache
def original_mask() -> set[int]:
    """Return the signals that were blocked at the first call: those that this process was started with."""
    return set(signal.pthread_sigmask(signal.SIG_BLOCK, ()))


def original_environment() -> dict[str, str]:
    """Return the environment that this process was started with.

    Python adds LC_CTYPE to it if the locale is C (PEP 538).
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
    """Call `execute`; for a script without "#!", call it again with the shell, as execvp(3) does."""
    try:
        return execute(path, list(arguments))
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
        return execute("/bin/sh", ["sh", path, *arguments[1:]])


def executable(program: str) -> str:
    """Return the path of `program`: `program` itself if it has a slash, else from the PATH or the folder of this Python.

    Raises:
        CommandNotStartedError: There is no such command.
    """
    if os.sep in program:
        return program
    beside_python = str(Path(sys.executable).parent)  # contains `vllm`, also if the environment is not activated
    search: Callable[[int], str | None] = lambda mode: (  # noqa: E731
        shutil.which(program, mode) or shutil.which(program, mode, path=beside_python)
    )
    if (found := search(os.F_OK | os.X_OK)) is not None:
        return found
    number = errno.EACCES if search(os.F_OK) is not None else errno.ENOENT
    raise CommandNotStartedError(program, OSError(number, os.strerror(number)))
