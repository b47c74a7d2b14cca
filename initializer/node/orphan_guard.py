"""Ending a command whose starter was killed: SIGKILL, as the out-of-memory killer sends it, cannot be forwarded.

PR_SET_PDEATHSIG would have to be set between fork and exec, by Python code in a fork of a process with threads, and it is
one signal: after SIGKILL, vLLM's API server leaves its engine core and the memory of the GPU; SIGTERM alone may be ignored.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from typing import Final

logger = logging.getLogger("phasebus.node")

_SHELL: Final = "/bin/sh"
_SCRIPT: Final = """\
trap '' HUP INT QUIT TERM
read -r nothing
kill -TERM "$0" || exit
while [ "$((seconds += 1))" -le 30 ]; do sleep 1; kill -0 "$0" || exit; done
kill -KILL "$0"
"""
"""It reads the end of the file once the starter has ended."""


class OrphanGuard:
    """A small process that ends a command if this process ends first: with SIGTERM, and after 30 seconds with SIGKILL.

    It is in a process group of its own, which a terminal does not signal. Where it cannot be started, the command runs without it.

    Args:
        pid: The command, a child process that has not been reaped.
    """

    def __init__(self, pid: int) -> None:
        self._pid: int | None = None
        self._writing: int | None = None
        try:
            self._start(pid)
        except OSError as error:  # no shell, or too many processes or descriptors
            logger.debug("the command outlives a SIGKILL of phasebus: %s", error)

    def _start(self, pid: int) -> None:
        reading, self._writing = os.pipe()
        null = (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)
        actions = [(os.POSIX_SPAWN_DUP2, reading, 0), null, (os.POSIX_SPAWN_DUP2, 1, 2)]
        try:
            self._pid = os.posix_spawn(
                _SHELL,
                ["sh", "-c", _SCRIPT, str(pid)],
                {"PATH": os.defpath},
                file_actions=actions,
                setpgroup=0,
                setsigmask=(),
                setsigdef=(signal.SIGPIPE,),
            )
        finally:
            os.close(reading)

    def release(self) -> None:
        """End the guard: the command has ended, and is reaped next."""
        if self._pid is not None:
            with contextlib.suppress(OSError):
                os.kill(self._pid, signal.SIGKILL)
                os.waitpid(self._pid, 0)
        if self._writing is not None:
            os.close(self._writing)
