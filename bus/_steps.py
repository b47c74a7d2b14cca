"""What a step is: a piece of work with a beginning and exactly one end.

Phases, downloads and the steps of an engine are all steps. The bus knows no more of them than this file says, so an
observer that handles steps handles every kind there will ever be.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import anyio

from phasebus.bus._events import Event
from phasebus.bus._ids import new_step_id

if TYPE_CHECKING:
    from phasebus.bus._dispatch import Dispatcher

AttributeValue = str | int | float | bool
StepOutcome = Literal["failed", "cancelled", "timed_out", "died"]

_FAREWELL_SECONDS = 5.0
"""How long the failure of a cancelled step may take to be told, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEvent(Event):
    """Something happened to a step.

    Attributes:
        step: The step's id: 16 lower-case hexadecimal digits, valid as a W3C span id.
        parent: The id of the step it belongs to, or None at the root.
        kind: What sort of work it is: ``"phase"``, ``"download"``, ``"callback"``, …
        name: Which one of its kind: ``"engine_init"``, a model's name, a callback's name.
        attributes: What else is known of it so far.
        time_ns: When it happened, in nanoseconds since the epoch.
        monotonic_ns: The same moment on the machine's monotonic clock, in nanoseconds.
        traced: Whether the process that ran the step exports its span by itself.
    """

    step: str
    parent: str | None = None
    kind: str
    name: str
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    time_ns: int = field(default_factory=time.time_ns)
    monotonic_ns: int = field(default_factory=time.monotonic_ns)
    traced: bool = False


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


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFinished(StepEvent):
    """Published when a step has ended well.

    Attributes:
        seconds: How long it took.
    """

    seconds: float


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


@dataclass(frozen=True, slots=True, kw_only=True)
class StepsCounted(Event):
    """Published for steps that are too many to be told one by one: those that ended alike since the last time.

    It is no `StepEvent`: it has no id, no parent and no moment, and whoever wants those does not want this.

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


@dataclass(frozen=True, slots=True)
class StepKind:
    """A kind of step, with the event classes that tell of it.

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


_current: ContextVar[Step | None] = ContextVar("phasebus_step", default=None)


def current_step() -> Step | None:
    """Return the innermost step that is running in this context, or None."""
    return _current.get()


class Step:
    """A running step: report its progress, add to its attributes.

    Attributes:
        id: The step's id, as in `StepEvent.step`.
        attributes: What is known of it; what is added until it ends is told with its end.
    """

    __slots__ = ("_bus", "_kind", "_started", "attributes", "id", "name", "parent")

    def __init__(self, bus: Dispatcher, kind: StepKind, name: str, parent: str | None) -> None:
        self._bus = bus
        self._kind = kind
        self._started = time.monotonic_ns()
        self.id = new_step_id()
        self.name = name
        self.parent = parent
        self.attributes: dict[str, AttributeValue] = {}

    async def progress(self, done: float, total: float | None = None, unit: str = "1") -> None:
        """Tell how far the step is: `done` of `total`, in `unit` (UCUM; ``"By"`` for bytes)."""
        await self._bus.publish(self.event(self._kind.progress, done=done, total=total, unit=unit))

    def event(self, event: type[StepEvent], **fields: object) -> StepEvent:
        """Return an event of this step, as it stands now."""
        return event(
            step=self.id,
            parent=self.parent,
            kind=self._kind.name,
            name=self.name,
            attributes=dict(self.attributes),
            **fields,  # type: ignore[arg-type]
        )

    @property
    def seconds(self) -> float:
        """How long it has taken so far, in seconds."""
        return (time.monotonic_ns() - self._started) / 1e9


@asynccontextmanager
async def run_step(
    bus: Dispatcher, kind: StepKind, name: str, parent: str | None, attributes: Mapping[str, AttributeValue]
) -> AsyncIterator[Step]:
    """Publish a step's start, and its one end whatever happens in between; see `Bus.step`."""
    if parent is None and (outer := _current.get()) is not None:
        parent = outer.id
    step = Step(bus, kind, name, parent)
    step.attributes.update(attributes)
    token = _current.set(step)
    try:
        await bus.publish(step.event(kind.started))
        yield step
    except BaseException as error:
        outcome = outcome_of(error)
        with anyio.move_on_after(_FAREWELL_SECONDS, shield=True):
            await bus.publish(step.event(kind.failed, seconds=step.seconds, outcome=outcome, error=error))
        raise
    else:
        await bus.publish(step.event(kind.finished, seconds=step.seconds))
    finally:
        _current.reset(token)


def outcome_of(error: BaseException) -> StepOutcome:
    """Return how a step ended that was ended by `error`: cancelled, timed out or failed."""
    if isinstance(error, anyio.get_cancelled_exc_class() | KeyboardInterrupt | GeneratorExit):
        return "cancelled"
    return "timed_out" if isinstance(error, TimeoutError) else "failed"
