"""The events on spans: failures with their stack trace, and what the steps inside a step did."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from phasebus.bus import AttributeValue, StepFailed, StepFinished
from phasebus.telemetry.redaction import reason, redact, redact_value
from phasebus.telemetry.stuck import StuckSteps

STACK_TRACE: Final = "exception.stacktrace"
"""The attribute of a failed step with the stack trace of another process, and of the event on its span."""

_MAX_STACK_CHARACTERS: Final = 8192
_MAX_EVENTS: Final = 100
"""Maximum number of events on one span; OpenTelemetry's limit is 128."""


@dataclass(frozen=True, slots=True)
class SpanEvent:
    """An event on a span.

    Attributes:
        name: Its name, with few values.
        attributes: Its attributes.
        time_ns: When it happened, in nanoseconds since the epoch.
    """

    name: str
    attributes: Mapping[str, AttributeValue]
    time_ns: int


class InnerEvents:
    """Events on the span of a step, which report what the steps inside it did."""

    def __init__(self) -> None:
        self._of_step: dict[str, list[SpanEvent]] = {}

    def add(self, ended: StepFinished | StepFailed) -> None:
        """Note what the step that has ended did, for its parent."""
        describe = _DESCRIPTIONS.get(ended.kind)
        found = describe(ended.attributes) if describe is not None and ended.parent is not None else None
        if found is None:
            return
        events = self._of_step.setdefault(str(ended.parent), [])
        if len(events) < _MAX_EVENTS:
            name, values = found
            attributes = {key: redact_value(key, value) for key, value in values.items()}
            events.append(SpanEvent(name, {**attributes, ended.kind: redact(ended.name)}, ended.time_ns))

    def add_stuck(self, stuck: StuckSteps) -> None:
        """Note why steps are stuck, for their own spans."""
        for step in stuck.steps:
            events = self._of_step.setdefault(step.step, [])
            if len(events) < _MAX_EVENTS:
                attributes: dict[str, AttributeValue] = {
                    "reason": step.reason,
                    "process": step.process,
                    "pid": step.pid,
                    "running_seconds": step.running_seconds,
                }
                if step.stacks:
                    attributes["stack"] = step.stacks[0]
                events.append(SpanEvent("stuck", attributes, stuck.time_ns))

    def take(self, step: str) -> list[SpanEvent]:
        """Return the events of a step that has ended, and forget them."""
        return self._of_step.pop(step, [])


def exception_event(failed: StepFailed) -> SpanEvent:
    """Return the event of a failure. Source: OpenTelemetry semantic conventions, "Exceptions on spans"."""
    attributes = {"exception.type": type(failed.error).__qualname__, "exception.message": reason(failed)}
    stack = str(failed.attributes.get(STACK_TRACE) or _stack_trace(failed.error))
    if stack:
        attributes[STACK_TRACE] = redact(stack)[-_MAX_STACK_CHARACTERS:]
    return SpanEvent("exception", attributes, failed.time_ns)


def _stack_trace(error: BaseException) -> str:
    if error.__traceback__ is None:
        return ""
    try:
        return "".join(traceback.format_exception(error))
    except Exception:  # noqa: BLE001  # an error whose text cannot be had
        return ""


_Description = tuple[str, Mapping[str, AttributeValue]] | None


def _callback(attributes: Mapping[str, AttributeValue]) -> _Description:
    changed = attributes.get("changed")
    return ("context changed", {"keys": changed}) if changed else None


def _file(attributes: Mapping[str, AttributeValue]) -> _Description:
    retries = attributes.get("retries")
    if retries:
        return "download retried", {"retries": retries}
    return ("cache hit", {}) if attributes.get("outcome") == "cache_hit" else None


_DESCRIPTIONS: Final[Mapping[str, Callable[[Mapping[str, AttributeValue]], _Description]]] = {
    "callback": _callback,
    "file": _file,
}
"""By the kind of step: the event that the step is on its parent's span."""
