"""Every event in the run's journal."""

from __future__ import annotations

from phasebus.bus import PhaseEvent, StepEvent
from phasebus.telemetry.journal import JournalWriter


class JournalObserver:
    """Writes steps and phase events into a journal, each at once.

    Args:
        writer: The journal.
    """

    def __init__(self, writer: JournalWriter) -> None:
        self._writer = writer

    def observe(self, event: StepEvent | PhaseEvent) -> None:
        """Write one event."""
        self._writer.write(event)

    def close(self) -> None:
        """Write that the run was closed in order."""
        self._writer.close()
