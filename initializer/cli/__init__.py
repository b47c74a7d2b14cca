"""The command line: one file a command, imported when the command is used."""

from phasebus.initializer.cli.group import main

__all__ = ["main"]
