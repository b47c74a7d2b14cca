"""The console script `phasebus`. It imports nothing of phasebus before an interrupt ends the process without a traceback.

It stands outside the rooms because importing a room takes a noticeable part of a second.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


def main() -> None:
    """Run the command line."""
    with interruptible_imports():
        from phasebus.initializer.cli import main as command_line
    command_line()


@contextmanager
def interruptible_imports() -> Iterator[None]:
    """End the process with exit code 130 if it is interrupted during the block, which only imports.

    A KeyboardInterrupt is not enough: a library may catch it, or be left half imported.
    """
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
