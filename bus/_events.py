"""The two base classes of events: `Event`, and `PhaseEvent` for a moment at which callbacks may act."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of the events phasebus itself publishes.

    A bus carries objects of any class; deriving from `Event` is a convenience, not a condition.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseEvent(Event):
    """A named moment of a process, published so that callbacks can act.

    Callbacks of the short form, ``callback(phase, config, data)``, receive every `PhaseEvent`.

    Attributes:
        phase: The phase's name, the same for every event of a class, such as ``"pre_download"``.
        config: The configuration of the process that is running. Its type is the process's own.
    """

    phase: ClassVar[str] = ""
    config: Any = field(default=None, repr=False)


@cache
def phase_event(phase: str) -> type[PhaseEvent]:
    """Return the event class of a phase known only by its name; the same class for the same name."""
    title = "".join(part.capitalize() for part in phase.replace("-", "_").split("_")) or "Unnamed"
    members = {"__slots__": (), "phase": phase, "__module__": __name__, "__reduce__": _reduce}
    return type(title, (PhaseEvent,), members)


def _reduce(event: PhaseEvent) -> tuple[Any, ...]:
    """Pickle an event by the name of its phase: its class is in no module."""
    return _event_of, (event.phase, event.config)


def _event_of(phase: str, config: Any) -> PhaseEvent:
    return phase_event(phase)(config=config)
