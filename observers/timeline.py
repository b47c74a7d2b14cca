"""The current steps, for the page and the terminal."""

from __future__ import annotations

from typing import Any

from phasebus.bus import StepEvent, StepFailed, StepFinished, StepProgress, StepStarted
from phasebus.telemetry.live_step import LiveStep
from phasebus.telemetry.redaction import reason, redact_attributes, redact_name
from phasebus.telemetry.timeline import Timeline


class TimelineObserver:
    """Updates a `Timeline`.

    Args:
        timeline: The timeline that it updates.
        node: The node whose steps it observes; by default that of the timeline.
        recorded: Whether the events were decoded from a journal, which is redacted and printable already.
    """

    def __init__(self, timeline: Timeline, node: str | None = None, *, recorded: bool = False) -> None:
        self._timeline = timeline
        self._recorded = recorded
        self._node = timeline.identity.node if node is None else node

    def observe(self, event: StepEvent) -> None:
        """Record an event of a step."""
        if isinstance(event, StepStarted):
            self._timeline.started(
                LiveStep(
                    id=event.step,
                    parent=event.parent,
                    node=self._node,
                    kind=event.kind,
                    name=event.name if self._recorded else redact_name(event.name),
                    start=event.time_ns / 1e9,
                    attributes=self._attributes(event),
                )
            )
        elif isinstance(event, StepProgress):
            self._timeline.progressed(event.step, event.done, event.total, event.unit, event.time_ns / 1e9)
        elif isinstance(event, StepFinished):
            self._timeline.ended(event.step, event.time_ns / 1e9, "finished", None, self._attributes(event))
        elif isinstance(event, StepFailed):
            self._timeline.ended(event.step, event.time_ns / 1e9, event.outcome, reason(event), self._attributes(event))

    def _attributes(self, event: StepEvent) -> dict[str, Any]:
        if self._recorded:
            return dict(event.attributes)
        return redact_attributes(event.attributes)
