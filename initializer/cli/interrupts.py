"""Interrupts while a command is imported: they end the process, as those before (`phasebus.console_script`) do."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interruptible_imports() -> Iterator[None]:
    """End the process with exit code 130 if it is interrupted during the block, which only imports."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield  # ignored, as below nohup, or handled by the program that calls the command line
        return
    try:
        signal.signal(signal.SIGINT, _end)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(number: int, frame: FrameType | None) -> None:
    os.write(2, b"phasebus: ended by SIGINT\n")
    os._exit(128 + number)
