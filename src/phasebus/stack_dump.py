"""The Python stacks of a process, written on request by a signal handler in C: also while a lock or the GIL is held.

A process offers its stacks by a file in memory, which has the number of the signal in its name. Another process of the
same user finds that file under ``/proc/PID/fd``, sends the signal, and reads the stacks from the file: nothing is written
to a disk, and no message has to arrive. The signal is a real-time signal that nothing else handles; without a handler it
would end the process, so that a sender must see it in ``SigCgt`` of ``/proc/PID/status`` first.

This module stands outside the rooms because processes of an engine import it: it imports nothing of ours.
"""

import contextlib
import faulthandler
import fcntl
import os
import signal

FILE_NAME = "phasebus-stacks"
"""The name of the file in memory; a hyphen and the number of the signal follow."""

_FIRST_SIGNAL_OFFSET, _SIGNALS_TRIED = 11, 8

_offered = None


def offer_stacks() -> int | None:
    """Let other processes of this user read the stacks of this one, and of those forked from it.

    Returns:
        The number of the signal; None if the system has no such files, or no signal is free.
    """
    global _offered  # noqa: PLW0603  # it is a fact about the process
    if _offered is None:
        _offered = _register()
        if _offered is not None:
            os.register_at_fork(after_in_child=_offer_again)
    return None if _offered is None else _offered[1]


def _offer_again() -> None:
    """In a process that was forked: use a file of its own."""
    global _offered  # noqa: PLW0603
    inherited, _offered = _offered, None
    with contextlib.suppress(Exception):
        if inherited is not None:
            faulthandler.unregister(inherited[1])
            os.close(inherited[0])
        _offered = _register()


def _register() -> tuple[int, int] | None:
    """Return the descriptor of the file and the number of the signal."""
    if not hasattr(os, "memfd_create") or not hasattr(signal, "SIGRTMIN"):
        return None
    first = signal.SIGRTMIN + _FIRST_SIGNAL_OFFSET
    for number in range(first, min(first + _SIGNALS_TRIED, signal.SIGRTMAX)):
        if number in handled_signals(os.getpid()) or signal.getsignal(number) is not signal.SIG_DFL:
            continue
        descriptor = os.memfd_create(f"{FILE_NAME}-{number}")
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_APPEND)  # a reader may empty it
            faulthandler.register(number, file=descriptor, all_threads=True)
        except (OSError, RuntimeError, ValueError):
            os.close(descriptor)
            continue
        return descriptor, number
    return None


def handled_signals(pid: int) -> set[int]:
    """Return the numbers of the signals that a process has handlers for; none if that cannot be read."""
    try:
        with open(f"/proc/{pid}/status", "rb") as status:  # noqa: PTH123  # no import for it
            for line in status:
                if line.startswith(b"SigCgt:"):
                    mask = int(line.split()[1], 16)
                    return {number for number in range(1, 65) if mask >> (number - 1) & 1}
    except (OSError, ValueError, IndexError):
        pass
    return set()
