"""`phasebus report`: where the time of a run went, from its journal.

One file for what is printed as tables, one for what is written as files.
"""

from phasebus.initializer.cli.report.group import report

__all__ = ["report"]
