"""Running a list of phases: each is a step, with an event before its work and one after it.

A phase list is data, so any process can be run and observed as one, not only the start of a node.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from typing import Any

import anyio
from anyio.abc import TaskGroup, TaskStatus

from phasebus.bus import Bus, Context, PhaseEvent, StepFailed, StepFinished, StepKind, StepStarted
from phasebus.initializer.pipeline.callbacks import Spelling, publish_phase
from phasebus.initializer.pipeline.control_flow import errors_only
from phasebus.initializer.pipeline.errors import CallbackError, PhaseError
from phasebus.initializer.pipeline.variables import changed_variables, set_variables


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseStarted(StepStarted):
    """Published when a phase begins, before its callbacks run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseFinished(StepFinished):
    """Published when a phase has succeeded, callbacks included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseFailed(StepFailed):
    """Published when a phase failed, was cancelled or timed out."""

    @property
    def phase(self) -> str:
        """The name of the phase."""
        return self.name


PHASE = StepKind("phase", started=PhaseStarted, finished=PhaseFinished, failed=PhaseFailed)


def _never(_: Context) -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One phase of a process.

    Attributes:
        name: Its name, in spans, metrics and messages.
        prepare: Runs before the callbacks of `before` and provides the values they need; None for nothing.
        before: The event before the work, at which callbacks may change its input; None for no event.
        work: Reads its input from the context and writes its result to it. None for a phase of callbacks only.
        after: The event after the work, at which callbacks can read its result; None for no event.
        applies: Returns whether the phase runs; called when the phases it waits for have finished.
        beside: Returns whether the next phases may begin before this work ends; called after the callbacks of `before`.
        joins: Whether the phase waits for all phases that run beside others; if not, it begins at once.
    """

    name: str
    prepare: Callable[[Context], Awaitable[None]] | None = None
    before: type[PhaseEvent] | None = None
    work: Callable[[Context], Awaitable[None]] | None = None
    after: type[PhaseEvent] | None = None
    applies: Callable[[Context], bool] = lambda _: True
    beside: Callable[[Context], bool] = _never
    joins: bool = True


def phase_names(phases: Iterable[Phase]) -> str:
    """Return the value of the attribute ``phases`` of the step around `phases`; metrics of each then begin at 0."""
    return ",".join(phase.name for phase in phases)


async def run_phases(
    bus: Bus, phases: Sequence[Phase], context: Context, config: Any = None, *, keys: Iterable[str] = ()
) -> None:
    """Run `phases` in order on `bus`, with one `context` that all of their callbacks share.

    A phase with `joins` begins when all phases that run beside others have ended, including their last callbacks. Context
    variables that a callback sets keep their values in all later phases.

    Args:
        bus: Where the events are published.
        phases: The phases, in order.
        context: The values that the callbacks and the phases' work share.
        config: The configuration of the process, passed to every callback.
        keys: The keys that the work reads. Writing a similar key is an error, unless it is a `Key`; so is removing one
            that has a value from the beginning.

    Raises:
        CallbackError: A callback misspelled or removed a key, or called ``sys.exit``.
        UnexpectedCancellationError: A callback or a phase's work was cancelled although nothing outside it requested
            that.
        PhaseError: A phase that applied has not finished.
        Exception: The error of the work or of a callback, with a note that names the phase; the phases that ran beside
            it are cancelled. An ExceptionGroup if several failed at once.
    """
    read = frozenset(map(str, keys))
    run = _PhaseListRun(bus, context, config, Spelling((*context, *read), read & context.keys()))
    try:
        async with anyio.create_task_group() as tasks:
            # In a task of its own: a cancel scope that a callback enters and never leaves ends with that task.
            tasks.start_soon(run.all, phases, tasks)
    except ExceptionGroup as group:
        run.raise_errors()
        raise CallbackError(
            f"a callback has not left a task group or a cancel scope that it entered ({group.exceptions[0]}); "
            "leave it in the last phase at the latest"
        ) from group
    run.raise_errors()


class _PhaseListRun:
    """One run of a phase list.

    All phases run in one task, except phases that may run beside others, which have tasks of their own.
    """

    def __init__(self, bus: Bus, context: Context, config: Any, spelling: Spelling) -> None:
        self._bus = bus
        self._context = context
        self._config = config
        self._spelling = spelling
        self._errors: list[Exception] = []
        self._unfinished: list[str] = []
        self._complete = False

    async def all(self, phases: Sequence[Phase], tasks: TaskGroup) -> None:
        """Run `phases`; if one fails, cancel `tasks`, the task group of this call."""
        beside: list[_BesideTask] = []
        for phase in phases:
            if phase.joins:
                for task in beside:
                    await task.ended.wait()
                    set_variables(task.variables)
                beside.clear()
            if self._errors or not phase.applies(self._context):
                continue
            self._unfinished.append(phase.name)
            if phase.beside is _never:
                await self._run(phase, tasks, _do_nothing)
            else:
                beside.append(_BesideTask())
                await tasks.start(self._run_beside, phase, tasks, beside[-1])
        for task in beside:
            await task.ended.wait()
        self._complete = True

    def raise_errors(self) -> None:
        """Raise the errors of the run; without errors, check that every phase has finished."""
        if len(self._errors) > 1:
            raise ExceptionGroup(f"{len(self._errors)} phases failed", self._errors)
        if self._errors:
            raise self._errors[0]
        if self._unfinished or not self._complete:
            names = ", ".join(map(repr, self._unfinished)) or "the last ones"
            raise PhaseError(f"these phases have not finished, although no error was raised: {names}")

    async def _run_beside(
        self, phase: Phase, tasks: TaskGroup, beside: _BesideTask, *, task_status: TaskStatus[None]
    ) -> None:
        before = copy_context()
        go_on = _Once(task_status.started)
        try:
            await self._run(phase, tasks, go_on)
        finally:
            beside.variables = changed_variables(before)
            beside.ended.set()
            go_on()

    async def _run(self, phase: Phase, tasks: TaskGroup, go_on: Callable[[], None]) -> None:
        """Run one phase; call `go_on` when the phases that follow may begin."""
        try:
            async with self._bus.step(PHASE, phase.name):
                with errors_only(owns_task=True):
                    await self._work(phase, go_on)
        except Exception as error:  # noqa: BLE001  # raised again by `raise_errors`: the task group would wrap it
            error.add_note(f"in the phase {phase.name!r}")
            self._errors.append(error)
            tasks.cancel_scope.cancel()
        else:
            self._unfinished.remove(phase.name)

    async def _work(self, phase: Phase, go_on: Callable[[], None]) -> None:
        context = self._context
        if phase.prepare is not None:
            await phase.prepare(context)
        if phase.before is not None:
            await self._publish(phase.before)
        if phase.beside(context):
            go_on()
        if phase.work is not None:
            await phase.work(context)
        if phase.after is not None:
            await self._publish(phase.after)

    async def _publish(self, event: type[PhaseEvent]) -> None:
        await publish_phase(self._bus, event(config=self._config), self._context, self._spelling)


class _BesideTask:
    """A task that runs one phase beside others.

    Attributes:
        ended: Set when it has ended.
        variables: The context variables that it changed; set when it has ended.
    """

    def __init__(self) -> None:
        self.ended = anyio.Event()
        self.variables: Mapping[ContextVar[Any], Any] = {}


class _Once:
    """Calls a function on its first call, and does nothing afterwards."""

    def __init__(self, function: Callable[[], None]) -> None:
        self._function: Callable[[], None] | None = function

    def __call__(self) -> None:
        function, self._function = self._function, None
        if function is not None:
            function()


def _do_nothing() -> None:
    """Do nothing, because no other phase waits."""
