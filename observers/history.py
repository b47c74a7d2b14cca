"""The history of runs: the observer that keeps it bounded."""

from __future__ import annotations

import logging

from phasebus.bus import StepStarted
from phasebus.telemetry.history import prune
from phasebus.telemetry.journal import journal_path
from phasebus.telemetry.run import RunIdentity

logger = logging.getLogger("phasebus.telemetry")


class HistoryObserver:
    """Removes the journals of old runs once, when the first step begins; in the thread of the observer.

    Of the processes of a run, only the one that started it does so, and one on each other machine.

    Args:
        identity: The run.
    """

    def __init__(self, identity: RunIdentity) -> None:
        self._identity = identity
        self._pruned = False

    def observe(self, _: StepStarted) -> None:
        """Prune the history at the first event."""
        if not self._pruned:
            self._pruned = True
            if self._identity.member and journal_path(self._identity.run).exists():
                return
            if removed := prune(keep=self._identity.run):
                logger.info("removed the journals of %d old runs; PHASEBUS_KEEP_RUNS keeps more", len(removed))
