"""Signal handlers of this process, which Ray replaces in C, where Python does not notice it."""

from __future__ import annotations

import signal
import threading
from typing import Final

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def restore_handlers() -> None:
    """Install this program's own handlers again; only the main thread can, any other leaves them as they are.

    A driver's handler of SIGTERM prints a stack, calls the handler before it, and aborts the process three seconds later, while
    that one still ends an engine or a cluster. When Ray is shut down, it resets handlers. Source: Ray 2.60, `src/ray/util/logging.cc`
    (``InstallFailureSignalHandler``), and Abseil's `failure_signal_handler.cc` (``alarm_on_failure_secs``).
    """
    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            if handler not in (signal.SIG_DFL, None):
                signal.signal(number, handler)
