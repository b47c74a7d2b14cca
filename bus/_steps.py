"""A running step: a piece of work with a beginning and exactly one end."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from contextvars import ContextVar, Token
from random import Random
from types import TracebackType
from typing import Self

import anyio

from phasebus.bus._log import log
from phasebus.bus._publisher import Publisher
from phasebus.bus._step_events import AttributeValue, StepEvent, StepKind, StepOutcome
from phasebus.clock import restart

FAILURE_EVENT_SECONDS = 5.0
"""How long publishing the failure of a step may take, also when the step was cancelled, in seconds."""

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
        if self.parent is None:
            if self.outer is not None:
                self.parent = self.outer.id
            else:
                restart()
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
        except Exception as another:  # noqa: BLE001  # of a subscriber, or of a bus that is closed: `error` is the one to be raised
            log(
                logging.WARNING,
                "publishing that %s %r failed was itself not possible",
                self._kind.name,
                self.name,
                error=another,
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
