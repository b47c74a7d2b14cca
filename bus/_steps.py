"""What a step is: a piece of work with a beginning and exactly one end.

Phases, downloads and the steps of an engine are all steps. The bus knows no more of them than this file says, so an
observer that handles steps handles every kind there will ever be.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from random import Random
from types import TracebackType
from typing import Literal, Self

import anyio

from phasebus.bus._events import Event
from phasebus.bus._publisher import Publisher
from phasebus.printable import printable_amount, printable_attributes, printable_label

AttributeValue = str | int | float | bool
StepOutcome = Literal["failed", "cancelled", "timed_out", "died"]

FAILURE_EVENT_SECONDS = 5.0
"""How long publishing the failure of a step may take, also when the step was cancelled, in seconds."""


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


_current: ContextVar[Step | None] = ContextVar("phasebus_step", default=None)


def current_step() -> Step | None:
    """Return the innermost step that is running in this context, or None."""
    step = _current.get()
    while step is not None and step.left_elsewhere:
        step = step.outer
    return step


class Step:
    """A running step: report its progress, add to its attributes.

    As an asynchronous context manager, which `Bus.step` is used as, it publishes its start and, whatever happens in
    between, its one end. It may be left in another task than it was entered in.

    Attributes:
        id: The step's id, as in `StepEvent.step`.
        name: Which one of its kind.
        parent: The id of the step it belongs to, or None.
        attributes: What is known of it; the event of its end has what was added until then.
        outer: The step that was running where it was entered, or None.
        left_elsewhere: Whether it was left in another context than it was entered in, which still names it.
    """

    __slots__ = ("_bus", "_kind", "_started", "_token", "attributes", "id", "left_elsewhere", "name", "outer", "parent")

    def __init__(
        self,
        bus: Publisher,
        kind: StepKind,
        name: str,
        parent: str | None = None,
        attributes: Mapping[str, AttributeValue] | None = None,
    ) -> None:
        self._bus = bus
        self._kind = kind
        self._started = time.monotonic_ns()
        self._token: Token[Step | None] | None = None
        self.id = new_step_id()
        self.name = name
        self.parent = parent
        self.attributes: dict[str, AttributeValue] = dict(attributes or {})
        self.outer: Step | None = None
        self.left_elsewhere = False

    async def progress(self, done: float, total: float | None = None, unit: str = "1") -> None:
        """Publish how far the step is: `done` of `total`, in `unit` (UCUM; ``"By"`` for bytes)."""
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

    async def __aenter__(self) -> Self:
        self._started = time.monotonic_ns()
        self.outer = current_step()
        if self.parent is None and self.outer is not None:
            self.parent = self.outer.id
        self._token = _current.set(self)
        try:
            await self._bus.publish(self.event(self._kind.started))
        except BaseException as error:
            await self._fail(error)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if error is not None:
            await self._fail(error)
            return
        try:
            await self._bus.publish(self.event(self._kind.finished, seconds=self.seconds))
        finally:
            self._leave()

    async def _fail(self, error: BaseException) -> None:
        try:
            with anyio.CancelScope(shield=True, deadline=anyio.current_time() + FAILURE_EVENT_SECONDS):
                await self._bus.publish(
                    self.event(self._kind.failed, seconds=self.seconds, outcome=outcome_of(error), error=error)
                )
        finally:
            self._leave()

    def _leave(self) -> None:
        token, self._token = self._token, None
        if token is None:
            return
        try:
            _current.reset(token)
        except ValueError:  # entered in another context, which cannot be changed from here
            self.left_elsewhere = True


def outcome_of(error: BaseException) -> StepOutcome:
    """Return how a step ended that was ended by `error`: cancelled, timed out or failed."""
    if isinstance(error, anyio.get_cancelled_exc_class() | KeyboardInterrupt | GeneratorExit):
        return "cancelled"
    return "timed_out" if isinstance(error, TimeoutError) else "failed"


_random = Random()  # unique, not secret; one of its own, as programs seed the common one, and alike
os.register_at_fork(after_in_child=_random.seed)


def new_step_id() -> str:
    """Return a random step id: 16 hexadecimal digits, never all zero (parent-id of W3C Trace Context).

    Asking the system for random bytes takes longer than all else of a step does on some virtual machines.
    """
    return f"{_random.randrange(1, 1 << 64):016x}"


def new_trace_id() -> str:
    """Return a random trace id: 32 hexadecimal digits, never all zero (trace-id of W3C Trace Context)."""
    return f"{_random.randrange(1, 1 << 128):032x}"
