"""The history of runs: which configuration each had, which run a name means, what is usual, and what is kept.

The journals are the history; nothing else is stored.
"""

from phasebus.telemetry.history.catalog import LAST, PREVIOUS, USUAL, find_run, recorded_runs, run_before, usual_runs
from phasebus.telemetry.history.configuration import BUSYNESS, FINGERPRINT, Configuration, Factor, busyness_of
from phasebus.telemetry.history.loading import EarlierStarts, earlier_starts
from phasebus.telemetry.history.machine import busyness, cpu_seconds, machine_factors, usable_cpus, version_factors
from phasebus.telemetry.history.retention import Retention, StoredRun, prune

__all__ = [
    "BUSYNESS",
    "FINGERPRINT",
    "LAST",
    "PREVIOUS",
    "USUAL",
    "Configuration",
    "EarlierStarts",
    "Factor",
    "Retention",
    "StoredRun",
    "busyness",
    "busyness_of",
    "cpu_seconds",
    "earlier_starts",
    "find_run",
    "machine_factors",
    "prune",
    "recorded_runs",
    "run_before",
    "usable_cpus",
    "usual_runs",
    "version_factors",
]
