"""The console script `phasebus`. Importing this module makes an interrupt end the process without a traceback.

It stands outside the rooms because importing a room takes a noticeable part of a second. Of the standard library it imports
modules that the interpreter has already: `signal` would import others before the handler is set.
"""

import _signal  # type: ignore[import-not-found]
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType


def end(number: int, frame: "FrameType | None") -> None:
    """End the process: the handler of SIGINT while it only imports.

    A KeyboardInterrupt is not enough: a library may catch it, or be left half imported.
    """
    os.write(2, b"phasebus: ended by SIGINT\n")
    os._exit(128 + number)


def main() -> None:
    """Run the command line."""
    from phasebus.initializer.cli import main as command_line

    if _signal.getsignal(_signal.SIGINT) is end:
        _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    command_line()


if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:  # it is ignored below nohup
    _signal.signal(_signal.SIGINT, end)
