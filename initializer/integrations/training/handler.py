"""Publishing the calls of Ray's controller as phases and steps."""

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
from phasebus.initializer.integrations.training.rpc import packed
from phasebus.initializer.pipeline.callbacks import Spelling, publish_phase
from phasebus.initializer.pipeline.errors import CallbackError

_FLUSH_SECONDS = 5.0
"""Maximum time to publish the end of the worker group, also after a cancellation, in seconds."""


class WorkersError(PhasebusError):
    """Recorded as the error of a failed worker group: the errors of its workers, or that they did not start."""


class ControllerHandler:
    """Publishes an event for every call of the controller and returns the result of the callbacks.

    Args:
        bus: The bus with the callbacks.
        config: The run's configuration.
        context: The context of the callbacks.
        parent: The id of the run's step.
        spelling: Checks the keys that callbacks write.

    Attributes:
        failure: The first error of a callback, as it was raised; None if none failed.
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
        self._methods: dict[str, Callable[..., Awaitable[Any]]] = {
            "pre_worker_group": self._pre_worker_group,
            "post_worker_group": self._post_worker_group,
            "reported": self._reported,
            "polled": self._polled,
            "worker_group_ended": self._worker_group_ended,
        }

    async def handle(self, method: str, arguments: dict[str, Any]) -> Any:
        """Publish the event of `method` and return its result."""
        try:
            return await self._methods[method](**arguments)
        except Exception as error:
            self.failure = self.failure or error
            raise

    async def close(self, error: BaseException | None) -> None:
        """Publish the end of the current worker group, if there is one: failed with `error`, or finished."""
        step, self._group = self._group, None
        if step is None:
            return
        with anyio.move_on_after(_FLUSH_SECONDS, shield=True):
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
        # Without the history, which would grow with every report.
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
            raise CallbackError(f"the callback {by!r} removed 'metrics', which Ray requires; change its entries")
        try:
            packed(kept)
        except Exception as error:
            raise CallbackError(f"a callback put a value into 'metrics' that cannot be sent to Ray: {error}") from error
        return kept

    async def _polled(self, errors: dict[int, str]) -> bool:
        if errors and errors != self._errors:
            self._errors = errors  # Ray polls the same errors again while a node is removed
            self._context[WORKER_ERRORS] = errors
            await self.close(WorkersError("; ".join(f"rank {rank}: {error}" for rank, error in errors.items())))
            await self._publish(WorkersFailed)
        return bool(self._context.get(STOP))

    async def _worker_group_ended(self) -> None:
        await self.close(self.failure)

    async def _publish(self, event: type[PhaseEvent]) -> None:
        await publish_phase(self._bus, event(config=self._config), self._context, self._spelling)
