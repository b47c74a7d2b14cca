"""How the children of a process of Ray's end, which Ray would have thrown away."""

from __future__ import annotations

import ctypes
import signal


def keep_exit_codes() -> None:
    """Have the system keep how the processes end that this one starts, until it asks.

    Ray's workers, and drivers as well, have that thrown away (SIGCHLD ignored, where the raylet looks after orphans), and
    what they start inherits it: then every exit code is 0 to `subprocess`, and vLLM waits for dead workers. Python may
    set a signal's handler in its main thread only, and knows nothing of what Ray has set.
    """
    if signal.getsignal(signal.SIGCHLD) in (signal.SIG_DFL, signal.SIG_IGN):
        set_handler = ctypes.CDLL(None).signal
        set_handler.argtypes, set_handler.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
        set_handler(signal.SIGCHLD, None)
