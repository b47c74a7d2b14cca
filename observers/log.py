"""Steps as lines of a log."""

from __future__ import annotations

import logging
from collections.abc import Collection

from phasebus.bus import StepEvent, StepFailed, StepFinished, StepStarted
from phasebus.telemetry.formatting import format_duration
from phasebus.telemetry.redaction import reason, redact_name
from phasebus.telemetry.span_names import span_name

logger = logging.getLogger("phasebus.startup")

_OUTCOMES = {"failed": "failed", "cancelled": "was cancelled", "timed_out": "timed out", "died": "died"}


class LogObserver:
    """Logs the end of each step, and the start of some kinds, at INFO; failures at ERROR.

    Args:
        logger: The logger; ``phasebus.startup`` by default.
        announced: The kinds of step whose start is logged.
    """

    def __init__(
        self,
        logger: logging.Logger = logger,
        *,
        announced: Collection[str] = ("cluster", "node", "phase", "ray", "download", "engine", "engine_step"),
    ) -> None:
        self._logger = logger
        self._announced = frozenset(announced)

    def observe(self, event: StepStarted | StepFinished | StepFailed) -> None:
        """Log one event."""
        step = redact_name(span_name(event.kind, event.name))
        if isinstance(event, StepFailed):
            why = reason(event)
            self._logger.error(
                "%s %s after %s: %s",
                step,
                _OUTCOMES[event.outcome],
                format_duration(event.seconds),
                why,
                extra=_extra(event),
            )
        elif isinstance(event, StepFinished):
            self._logger.info("%s: %s", step, format_duration(event.seconds), extra=_extra(event))
        elif event.kind in self._announced:
            self._logger.info("%s …", step, extra=_extra(event))


def _extra(event: StepEvent) -> dict[str, object]:
    """Return the fields for a structured formatter."""
    return {"step": event.step, "kind": event.kind, "step_name": redact_name(event.name), "seen_ns": event.time_ns}
