"""Analyses of where a run's time went. Pure functions of a `Run`."""

from phasebus.telemetry.analysis.advice import Advice, Lever, advise, common_levers, shortened, spread
from phasebus.telemetry.analysis.blame import BlameRow, blame, time_to_ready
from phasebus.telemetry.analysis.caches import CacheUse, cache_uses
from phasebus.telemetry.analysis.comparison import Comparison, Shift, compare
from phasebus.telemetry.analysis.critical_path import CriticalPath, Link, Overlap, critical_path
from phasebus.telemetry.analysis.diff import Difference, diff, usual_seconds
from phasebus.telemetry.analysis.gaps import Gap, gaps, unnamed_share
from phasebus.telemetry.analysis.nesting import PlacedStep, own_seconds, walk
from phasebus.telemetry.analysis.page_state import page_state
from phasebus.telemetry.analysis.perfetto import perfetto
from phasebus.telemetry.analysis.plot import plot
from phasebus.telemetry.analysis.replay import Factor, replay
from phasebus.telemetry.analysis.stragglers import Straggler, stragglers

__all__ = [
    "Advice",
    "BlameRow",
    "CacheUse",
    "Comparison",
    "CriticalPath",
    "Difference",
    "Factor",
    "Gap",
    "Lever",
    "Link",
    "Overlap",
    "PlacedStep",
    "Shift",
    "Straggler",
    "advise",
    "blame",
    "cache_uses",
    "common_levers",
    "compare",
    "critical_path",
    "diff",
    "gaps",
    "own_seconds",
    "page_state",
    "perfetto",
    "plot",
    "replay",
    "shortened",
    "spread",
    "stragglers",
    "time_to_ready",
    "unnamed_share",
    "usual_seconds",
    "walk",
]
