"""Times that an engine's processes report, on the clock of the events of this process."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

from phasebus.bus import StepEvent
from phasebus.clock import correction_ns

E = TypeVar("E", bound=StepEvent)


def on_event_clock(event: E) -> E:
    """Return an event whose time is of the wall clock with the time that an event of this process has; see `EventClock`."""
    correction = correction_ns()
    return dataclasses.replace(event, time_ns=event.time_ns + correction) if correction else event
