"""Steps as lines of a log."""

from __future__ import annotations

import logging
from collections.abc import Collection

from phasebus.bus import StepEvent, StepFailed, StepFinished, StepStarted
from phasebus.telemetry.formatting import NOTABLE_SECONDS, format_duration, format_step
from phasebus.telemetry.redaction import reason, redact_name

logger = logging.getLogger("phasebus.startup")

_OUTCOMES = {"failed": "failed", "cancelled": "was cancelled", "timed_out": "timed out", "died": "died"}


class LogObserver:
    """Logs one line for each step worth a line: failures at ERROR, the others at INFO.

    The end of a step is worth a line if it took a noticeable time or changed something. Of most kinds the start is none: what
    runs is shown by the status lines of the command line, and by the page. Other starts and ends are logged at DEBUG, and so
    are steps that failed with the error of a step inside them.

    Args:
        logger: The logger; ``phasebus.startup`` by default.
        announced: The kinds of step whose start is logged at INFO.
        shortest: The shortest duration whose end is logged at INFO, in seconds.
    """

    def __init__(
        self,
        logger: logging.Logger = logger,
        *,
        announced: Collection[str] = ("cluster", "node"),
        shortest: float = NOTABLE_SECONDS,
    ) -> None:
        self._logger = logger
        self._announced = frozenset(announced)
        self._shortest = shortest
        self._last_reason: str | None = None

    def observe(self, event: StepStarted | StepFinished | StepFailed) -> None:
        """Log one event."""
        if isinstance(event, StepFailed):
            self._failed(event)
            return
        if isinstance(event, StepFinished):
            changed = event.attributes.get("changed")
            level = logging.INFO if changed or event.seconds >= self._shortest else logging.DEBUG
            if self._logger.isEnabledFor(level):
                text = format_duration(event.seconds) + (f", changed {redact_name(str(changed))}" if changed else "")
                self._logger.log(level, "%s: %s", _name(event), text, extra=_extra(event))
            return
        level = logging.INFO if event.kind in self._announced else logging.DEBUG
        if self._logger.isEnabledFor(level):
            self._logger.log(level, "%s …", _name(event), extra=_extra(event))

    def _failed(self, event: StepFailed) -> None:
        why, took = reason(event), format_duration(event.seconds)
        if why != self._last_reason:
            text, first_line = "%s %s after %s: %s", why.partition("\n")[0]
            self._logger.error(text, _name(event), _OUTCOMES[event.outcome], took, first_line, extra=_extra(event))
        else:
            level = logging.ERROR if event.kind in self._announced else logging.DEBUG
            self._logger.log(level, "%s %s after %s", _name(event), _OUTCOMES[event.outcome], took, extra=_extra(event))
        self._last_reason = why


def _name(event: StepEvent) -> str:
    return redact_name(format_step({"kind": event.kind, "name": event.name, "attributes": event.attributes}))


def _extra(event: StepEvent) -> dict[str, object]:
    """Return the fields for a structured formatter."""
    return {"step": event.step, "kind": event.kind, "step_name": redact_name(event.name), "seen_ns": event.time_ns}
