"""The command line: one file a command, imported when the command is used."""

import sys

try:
    from phasebus.initializer.cli.group import main
except KeyboardInterrupt:  # Ctrl-C in the first moments is no error, and has no traceback
    sys.exit(130)

__all__ = ["main"]
