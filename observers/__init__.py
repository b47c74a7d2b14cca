"""Subscribers that only observe: spans, metrics, status, journal, log, progress, watchdog.

An observer handles steps of any kind in the same way, a download or a training epoch, so that the same observers serve every
process. This room knows `phasebus.bus` and `phasebus.telemetry`, and nothing of what is being started.
"""

from phasebus.observers.history import HistoryObserver
from phasebus.observers.journal import JournalObserver
from phasebus.observers.log import LogObserver
from phasebus.observers.metrics import MetricsObserver
from phasebus.observers.progress import ProgressObserver
from phasebus.observers.spans import SpanObserver
from phasebus.observers.status import StatusObserver
from phasebus.observers.timeline import TimelineObserver
from phasebus.observers.watchdog import Watchdog

__all__ = [
    "HistoryObserver",
    "JournalObserver",
    "LogObserver",
    "MetricsObserver",
    "ProgressObserver",
    "SpanObserver",
    "StatusObserver",
    "TimelineObserver",
    "Watchdog",
]
