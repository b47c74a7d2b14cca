"""How long a start will still take, from earlier starts. Pure functions: the observer of a live start feeds them.

`past` reduces a recorded run to the chain of milestones that set its time to ready, `progress` is how far a start is,
`estimate` continues it along each of those chains, and `calibration` measures on the earlier starts how wrong that is.
"""

from phasebus.telemetry.analysis.forecast.calibration import Forecast, Remaining
from phasebus.telemetry.analysis.forecast.past import PastRun, past_run
from phasebus.telemetry.analysis.forecast.progress import Progress, StepKey, key_of
from phasebus.telemetry.analysis.forecast.usual import Usual, following, usual_durations, usual_order

__all__ = [
    "Forecast",
    "PastRun",
    "Progress",
    "Remaining",
    "StepKey",
    "Usual",
    "following",
    "key_of",
    "past_run",
    "usual_durations",
    "usual_order",
]
