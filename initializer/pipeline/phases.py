"""Running a list of phases: each a step, with an event before its work and one after it.

A phase list is data, so that any process, not only the start of a node, can be run and watched like this.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import anyio
from anyio.abc import TaskStatus

from phasebus.bus import Bus, Context, PhaseEvent, StepFailed, StepFinished, StepKind, StepStarted
from phasebus.initializer.pipeline.callbacks import Spelling, ask, error_for_exit


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseStarted(StepStarted):
    """Published when a phase begins, before its callbacks run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseFinished(StepFinished):
    """Published when a phase has ended well, callbacks included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseFailed(StepFailed):
    """Published when a phase failed, was cancelled or timed out."""

    @property
    def phase(self) -> str:
        """The name of the phase."""
        return self.name


PHASE = StepKind("phase", started=PhaseStarted, finished=PhaseFinished, failed=PhaseFailed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One phase of a process.

    Attributes:
        name: Its name, in spans, metrics and messages.
        prepare: What has to be known before callbacks are asked; None if nothing has.
        before: The event at which callbacks may change what the work will do; None for no such moment.
        work: What is done; it reads the context and puts what it achieved there. None for a phase that is all callbacks.
        after: The event at which callbacks see what was done; None for no such moment.
        applies: Tells whether the phase is run at all, once the phases before it are done.
        beside: Tells, once the callbacks of `before` are done, whether the phases that follow may begin.
        joins: Whether it waits for the phases that still run beside it; without, it begins at once.
    """

    name: str
    prepare: Callable[[Context], Awaitable[None]] | None = None
    before: type[PhaseEvent] | None = None
    work: Callable[[Context], Awaitable[None]] | None = None
    after: type[PhaseEvent] | None = None
    applies: Callable[[Context], bool] = lambda _: True
    beside: Callable[[Context], bool] = lambda _: False
    joins: bool = True


async def run_phases(
    bus: Bus, phases: Sequence[Phase], context: Context, config: Any = None, *, keys: Iterable[str] = ()
) -> None:
    """Run `phases` in order on `bus`, with one `context` that all of their callbacks share.

    A phase that runs beside the next ones ends, its last callbacks included, before any phase begins that joins it.

    Args:
        bus: Where the events are published.
        phases: The phases, in order.
        context: What the callbacks and the phases' work share.
        config: The configuration of the process, handed to every callback.
        keys: What the work reads. A callback that writes nearly one of them has misspelt it, unless it uses a `Key`.

    Raises:
        CallbackError: A callback misspelt a key, or called ``sys.exit``.
        Exception: What the work or a callback raised, with a note that names the phase; the phases that ran beside it
            are cancelled. An ExceptionGroup if several failed at once.
    """
    errors: list[Exception] = []
    running: list[anyio.Event] = []
    spelling = Spelling((*context, *keys))

    async def ask_all(event: type[PhaseEvent]) -> None:
        await ask(bus, event(config=config), context, spelling)

    async def run(phase: Phase, ended: anyio.Event, *, task_status: TaskStatus[None]) -> None:
        go_on = _Once(task_status.started)
        try:
            await _run(bus, phase, context, ask_all, go_on)
        except Exception as error:  # noqa: BLE001  # raised again below: the task group would wrap it
            errors.append(error)
            tasks.cancel_scope.cancel()
        finally:
            ended.set()
            go_on()

    async with anyio.create_task_group() as tasks:
        for phase in phases:
            if phase.joins:
                for ended in running:
                    await ended.wait()
            if phase.applies(context) and not errors:
                running.append(anyio.Event())
                await tasks.start(run, phase, running[-1])
    if len(errors) > 1:
        raise ExceptionGroup(f"{len(errors)} phases failed", errors)
    if errors:
        raise errors[0]


async def _run(
    bus: Bus,
    phase: Phase,
    context: Context,
    ask_all: Callable[[type[PhaseEvent]], Awaitable[None]],
    go_on: Callable[[], None],
) -> None:
    """Run one phase; `ask_all` publishes an event, and `go_on` is called when the phases that follow may begin."""
    try:
        async with bus.step(PHASE, phase.name):
            if phase.prepare is not None:
                await phase.prepare(context)
            if phase.before is not None:
                await ask_all(phase.before)
            if phase.beside(context):
                go_on()
            if phase.work is not None:
                await phase.work(context)
            if phase.after is not None:
                await ask_all(phase.after)
    except SystemExit as error:
        failure = error_for_exit(error)
        failure.add_note(f"in the phase {phase.name!r}")
        raise failure from error
    except Exception as error:
        error.add_note(f"in the phase {phase.name!r}")
        raise


class _Once:
    """Calls a function the first time it is called itself."""

    def __init__(self, function: Callable[[], None]) -> None:
        self._function: Callable[[], None] | None = function

    def __call__(self) -> None:
        function, self._function = self._function, None
        if function is not None:
            function()
