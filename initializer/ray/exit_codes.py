"""The exit codes of the children of a Ray process, which Ray discards."""

from __future__ import annotations

import ctypes
import signal


def keep_exit_codes() -> None:
    """Make the system keep the exit codes of this process's children until they are read.

    Ray's workers and drivers ignore SIGCHLD (if the raylet reaps orphans), and their children inherit that. As a result,
    `subprocess` reads every exit code as 0, and vLLM waits for dead workers. The handler is set in C, because Python sets
    signal handlers in its main thread only and does not know a handler that Ray has set in C.
    """
    if signal.getsignal(signal.SIGCHLD) in (signal.SIG_DFL, signal.SIG_IGN):
        set_handler = ctypes.CDLL(None).signal
        set_handler.argtypes, set_handler.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
        set_handler(signal.SIGCHLD, None)
