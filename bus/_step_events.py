"""The events of a step, and the kinds of steps.

Phases, downloads and the steps of an engine are all steps. The bus knows no more of them than this file says, so an
observer that handles steps handles every kind there will ever be.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from phasebus.bus._events import Event
from phasebus.clock import now_ns
from phasebus.printable import printable_amount, printable_attributes, printable_label

AttributeValue = str | int | float | bool
StepOutcome = Literal["failed", "cancelled", "timed_out", "died"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEvent(Event):
    """Something happened to a step.

    Whatever it is made from, its texts are printable and its numbers are finite: every output can carry it.

    Attributes:
        step: The step's id: 16 lower-case hexadecimal digits, valid as a W3C span id.
        parent: The id of the step it belongs to, or None at the root.
        kind: What sort of work it is: ``"phase"``, ``"download"``, ``"callback"``, …
        name: Which one of its kind: ``"engine_init"``, a model's name, a callback's name.
        attributes: What else is known of it so far.
        time_ns: When it happened, in nanoseconds since the epoch; by default by a clock that continues evenly where the
            wall clock is set.
        monotonic_ns: The same moment on the machine's monotonic clock, in nanoseconds.
        traced: Whether the process that ran the step exports its span by itself.
    """

    step: str
    parent: str | None = None
    kind: str
    name: str
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    time_ns: int = field(default_factory=now_ns)
    monotonic_ns: int = field(default_factory=time.monotonic_ns)
    traced: bool = False

    def __post_init__(self) -> None:
        if (name := printable_label(self.name)) is not self.name:
            object.__setattr__(self, "name", name)
        if self.attributes and (attributes := printable_attributes(self.attributes)) is not self.attributes:
            object.__setattr__(self, "attributes", attributes)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStarted(StepEvent):
    """Published when a step begins, before any of its work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepProgress(StepEvent):
    """Published while a step runs, as often as its owner finds useful.

    Attributes:
        done: How much is done, in `unit`.
        total: How much there is to do, in `unit`; None while that is unknown.
        unit: A unit in UCUM notation: ``"By"`` for bytes, ``"1"`` for things counted.
    """

    done: float
    total: float | None = None
    unit: str = "1"

    def __post_init__(self) -> None:
        StepEvent.__post_init__(self)
        done, total = printable_amount(self.done) or 0, None if self.total is None else printable_amount(self.total)
        if done is not self.done or total is not self.total:
            object.__setattr__(self, "done", done)
            object.__setattr__(self, "total", total)
        if (unit := printable_label(self.unit)) is not self.unit:
            object.__setattr__(self, "unit", unit)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFinished(StepEvent):
    """Published when a step has ended well.

    Attributes:
        seconds: How long it took.
    """

    seconds: float

    def __post_init__(self) -> None:
        StepEvent.__post_init__(self)
        if (seconds := printable_amount(self.seconds) or 0) is not self.seconds:
            object.__setattr__(self, "seconds", seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFailed(StepEvent):
    """Published when a step has ended otherwise: by an error, a cancellation, a timeout, or the death of its process.

    Attributes:
        seconds: How long it had taken until then.
        outcome: Which of these it was.
        error: The exception that ended it.
    """

    seconds: float
    outcome: StepOutcome
    error: BaseException

    def __post_init__(self) -> None:
        StepEvent.__post_init__(self)
        if (seconds := printable_amount(self.seconds) or 0) is not self.seconds:
            object.__setattr__(self, "seconds", seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepsCounted(Event):
    """Published for steps that are too many for an event each: those that ended in the same way since the last time.

    It is no `StepEvent`: it has no id, no parent and no moment.

    Attributes:
        kind: What sort of work they were.
        name: Which one of its kind.
        attributes: What is true of all of them.
        outcome: How they ended: ``"finished"``, or as a `StepFailed` says.
        seconds: How long each of them took.
    """

    kind: str
    name: str
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    outcome: StepOutcome | Literal["finished"] = "finished"
    seconds: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", printable_label(self.name))
        object.__setattr__(self, "attributes", printable_attributes(self.attributes))


@dataclass(frozen=True, slots=True)
class StepKind:
    """A kind of step, and its event classes.

    Args:
        name: The kind, as in `StepEvent.kind`.
        started: Published at the beginning; the others accordingly.
    """

    name: str
    started: type[StepStarted] = StepStarted
    progress: type[StepProgress] = StepProgress
    finished: type[StepFinished] = StepFinished
    failed: type[StepFailed] = StepFailed


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackStarted(StepStarted):
    """Published when a callback is about to be called for a phase."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackFinished(StepFinished):
    """Published when a callback has succeeded; the attribute ``changed`` names the context keys it wrote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackFailed(StepFailed):
    """Published when a callback has failed."""


CALLBACK = StepKind("callback", started=CallbackStarted, finished=CallbackFinished, failed=CallbackFailed)
