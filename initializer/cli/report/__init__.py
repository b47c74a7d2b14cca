"""`phasebus report`: an analysis of the durations in a run, from its journal.

`tables` has the reports that are printed as tables, `caches` the one on caches, `differences` the one
that compares runs, `files` those that are written as files.
"""

from phasebus.initializer.cli.report.group import report

__all__ = ["report"]
