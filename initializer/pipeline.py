"""Running a list of phases: each a step, with an event before its work and one after it.

A phase list is data, so that any process, not only the start of a node, can be run and watched like this.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from phasebus.bus import Bus, Context, PhaseEvent
from phasebus.initializer.phases import PHASE


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
    """

    name: str
    prepare: Callable[[Context], Awaitable[None]] | None = None
    before: type[PhaseEvent] | None = None
    work: Callable[[Context], Awaitable[None]] | None = None
    after: type[PhaseEvent] | None = None
    applies: Callable[[Context], bool] = lambda _: True


async def run_phases(bus: Bus, phases: Sequence[Phase], context: Context, config: Any = None) -> None:
    """Run `phases` in order on `bus`, with one `context` that all of their callbacks share.

    Args:
        bus: Where the events are published.
        phases: The phases, in order.
        context: What the callbacks and the phases' work share.
        config: The configuration of the process, handed to every callback.

    Raises:
        Exception: What the work or a callback raised, with a note that names the phase.
    """
    for phase in phases:
        if not phase.applies(context):
            continue
        try:
            async with bus.step(PHASE, phase.name):
                if phase.prepare is not None:
                    await phase.prepare(context)
                if phase.before is not None:
                    await bus.publish(phase.before(config=config), context)
                if phase.work is not None:
                    await phase.work(context)
                if phase.after is not None:
                    await bus.publish(phase.after(config=config), context)
        except Exception as error:
            error.add_note(f"in the phase {phase.name!r}")
            raise
