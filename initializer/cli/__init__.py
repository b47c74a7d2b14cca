"""The command line: one file per command, imported when the command is used."""

import sys

try:
    from phasebus.initializer.cli.group import main
except KeyboardInterrupt:  # Ctrl-C during imports is not an error and prints no traceback
    sys.exit(130)

__all__ = ["main"]
