"""Steps and phase events, written into the run's journal."""

from __future__ import annotations

import logging

from phasebus.bus import PhaseEvent, StepEvent
from phasebus.telemetry.journal import JournalWriter

logger = logging.getLogger("phasebus.telemetry")


class JournalObserver:
    """Writes each step event and phase event into a journal immediately.

    A journal that can no longer be written, for example because the disk is full, ends with the last event that fitted;
    one warning names the reason.

    Args:
        writer: The journal.
    """

    def __init__(self, writer: JournalWriter) -> None:
        self._writer = writer
        self._failed = False
        self._closed = False

    def observe(self, event: StepEvent | PhaseEvent) -> None:
        """Write one event."""
        self.record(event)

    def record(self, event: object) -> None:
        """Write an event that is not published on the bus. May be called from any thread."""
        if not self._failed and not self._closed:
            try:
                self._writer.write(event)
            except OSError as error:
                self._fail(error)

    def close(self) -> None:
        """Write the last line: the run was closed properly."""
        self._closed = True
        try:
            self._writer.close()
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        if not self._failed:
            self._failed = True
            logger.warning(
                "cannot write the journal %s: %s. The run goes on without it", self._writer.path, error.strerror
            )
