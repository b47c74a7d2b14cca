"""What the controller of a run tells, as phases and steps; and what it is answered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from phasebus.bus import (
    Bus,
    Context,
    PhasebusError,
    PhaseEvent,
    Step,
    StepFailed,
    StepFinished,
    StepStarted,
    outcome_of,
)
from phasebus.initializer.integrations.training.config import TrainingConfig
from phasebus.initializer.integrations.training.events import (
    CHECKPOINT,
    METRICS,
    REPORT,
    STOP,
    WORKER_ERRORS,
    WORKER_GROUP,
    CheckpointSaved,
    PostWorkerGroup,
    PreWorkerGroup,
    Reported,
    WorkersFailed,
)
from phasebus.initializer.integrations.training.line import packed
from phasebus.initializer.pipeline.callbacks import Spelling, ask
from phasebus.initializer.pipeline.errors import CallbackError

_FAREWELL_SECONDS = 5.0
"""How long the end of the workers of a run that is cancelled may take to be told, in seconds."""


class WorkersError(PhasebusError):
    """How the step of a group of workers failed: what they raised, or that they did not start."""


class Answers:
    """Publishes what the controller tells, and answers with what the callbacks made of it.

    Args:
        bus: Where the callbacks are.
        config: The run's configuration.
        context: What the callbacks share.
        parent: The id of the run's step.
        spelling: Looks at the keys that callbacks have written.

    Attributes:
        failure: The first error of a callback, as it was raised; None so far.
    """

    def __init__(self, bus: Bus, config: TrainingConfig, context: Context, parent: str, spelling: Spelling) -> None:
        self._bus = bus
        self._config = config
        self._context = context
        self._parent = parent
        self._spelling = spelling
        self._group: Step | None = None
        self._groups = self._reports = 0
        self.failure: Exception | None = None
        self._errors: dict[int, str] = {}
        self._moments: dict[str, Callable[..., Awaitable[Any]]] = {
            "pre_worker_group": self._pre_worker_group,
            "post_worker_group": self._post_worker_group,
            "reported": self._reported,
            "polled": self._polled,
            "worker_group_ended": self._worker_group_ended,
        }

    async def answer(self, moment: str, told: dict[str, Any]) -> Any:
        """Publish what is told, and return the answer."""
        try:
            return await self._moments[moment](**told)
        except Exception as error:
            self.failure = self.failure or error
            raise

    async def close(self, error: BaseException | None) -> None:
        """Tell the end of the workers that were last started, if it is not yet told: ended by `error`, or well."""
        step, self._group = self._group, None
        if step is None:
            return
        with anyio.move_on_after(_FAREWELL_SECONDS, shield=True):
            if error is None:
                await self._bus.publish(step.event(StepFinished, seconds=step.seconds))
            else:
                ended = step.event(StepFailed, seconds=step.seconds, outcome=outcome_of(error), error=error)
                await self._bus.publish(ended)

    async def _pre_worker_group(self, workers: int) -> None:
        await self.close(WorkersError("the workers did not start"))
        self._groups += 1
        self._errors = {}
        self._group = step = Step(self._bus, WORKER_GROUP, self._config.name, self._parent)
        step.attributes.update(workers=workers, attempt=self._groups)
        await self._bus.publish(step.event(StepStarted))
        await self._publish(PreWorkerGroup)

    async def _post_worker_group(self) -> None:
        await self._publish(PostWorkerGroup)

    async def _reported(self, metrics: dict[str, Any], checkpoint: str | None) -> dict[str, Any]:
        self._reports += 1
        # Unlike assignments these are in no history, which would keep every report of the run.
        self._context.data.update({METRICS: metrics, CHECKPOINT: checkpoint})
        group = None if self._group is None else self._group.id
        attributes = {"number": self._reports, "checkpoint": checkpoint is not None}
        async with self._bus.step(REPORT, self._config.name, parent=group, attributes=attributes):
            await self._publish(Reported)
            if checkpoint is not None:
                await self._publish(CheckpointSaved)
        kept: dict[str, Any] | None = self._context.get(METRICS)
        if kept is None:
            by = self._context.history(METRICS)[-1].by
            raise CallbackError(f"the callback {by!r} removed 'metrics', which Ray keeps; change what is in it")
        try:
            packed(kept)
        except Exception as error:
            raise CallbackError(f"a callback put into 'metrics' what cannot be sent to Ray: {error}") from error
        return kept

    async def _polled(self, errors: dict[int, str]) -> bool:
        if errors and errors != self._errors:
            self._errors = errors  # while a node is being taken away, Ray sees the same again and again
            self._context[WORKER_ERRORS] = errors
            await self.close(WorkersError("; ".join(f"rank {rank}: {error}" for rank, error in errors.items())))
            await self._publish(WorkersFailed)
        return bool(self._context.get(STOP))

    async def _worker_group_ended(self) -> None:
        await self.close(self.failure)

    async def _publish(self, event: type[PhaseEvent]) -> None:
        await ask(self._bus, event(config=self._config), self._context, self._spelling)
