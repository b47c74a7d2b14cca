"""`phasebus report`: what the journal of a run says about where the time went.

One file for what is printed as tables, one for what is written as files.
"""

from phasebus.initializer.cli.report.group import report

__all__ = ["report"]
