"""The command line: one file per command, imported when the command is used."""

from phasebus.initializer.cli.interrupts import interruptible_imports

with interruptible_imports():
    from phasebus.initializer.cli.group import main

__all__ = ["main"]
