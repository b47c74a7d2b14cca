"""`run_training`: a run of Ray Train with phases."""

from __future__ import annotations

import dataclasses
from typing import Any

import anyio.to_thread

from phasebus.bus import Bus, Context, PhasebusError, Step, Threads
from phasebus.initializer.assembly import watched
from phasebus.initializer.training.config import TrainingConfig
from phasebus.initializer.training.events import (
    LOOP_CONFIG,
    RESULT,
    RUN_CONFIG,
    SCALING_CONFIG,
    TRAINING,
    PostTraining,
    PreTraining,
)
from phasebus.initializer.training.listening import Listening
from phasebus.telemetry import Telemetry


class TrainingError(PhasebusError):
    """Raised when a run asks for what its phases cannot be told of."""


async def run_training(config: TrainingConfig, *, telemetry: Telemetry | None = None, bus: Bus | None = None) -> Any:
    """Train with Ray Train v2; return its Result.

    The callbacks run in this process. Ray's controller waits for them, and the workers go on meanwhile.

    Args:
        config: What is trained, and the callbacks that may change how.
        telemetry: Open telemetry that is to carry what is seen; by default one of its own, without the HTTP service.
        bus: An open bus; by default one of its own, with the built-in observers on it.

    Raises:
        TrainingError: The run is one without workers (``num_workers=0``), which has no controller.
        Exception: What a callback raised, with a note that names it; else Ray's TrainingFailedError.
    """
    from ray.train.v2.api.config import RunConfig, ScalingConfig

    context = Context(
        {
            LOOP_CONFIG: config.loop_config,
            SCALING_CONFIG: config.scaling_config or ScalingConfig(),
            RUN_CONFIG: config.run_config or RunConfig(),
        }
    )
    async with (
        watched(config.name, config.callbacks, telemetry, bus) as opened,
        opened.step(TRAINING, config.name) as step,
    ):
        await opened.publish(PreTraining(config=config), context)
        context[RESULT] = await anyio.to_thread.run_sync(_fit, config, opened.threads(), context, step)
        await opened.publish(PostTraining(config=config), context)
        return context[RESULT]


def _fit(config: TrainingConfig, threads: Threads, context: Context, step: Step) -> Any:
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    from phasebus.initializer.training.controller import ControllerWatch

    if context[SCALING_CONFIG].num_workers == 0:
        raise TrainingError("num_workers=0 trains in this process, without a controller to hear of; use at least 1")
    listening = Listening(threads, config, context, step.id)
    with listening.listen() as address:
        run = context[RUN_CONFIG]
        trainer = (config.trainer or DataParallelTrainer)(
            config.train_loop,
            train_loop_config=context[LOOP_CONFIG],
            scaling_config=context[SCALING_CONFIG],
            run_config=dataclasses.replace(
                run, callbacks=[*(run.callbacks or ()), ControllerWatch(address, listening.key)]
            ),
            **config.trainer_options,
        )
        try:
            result = trainer.fit()
        except Exception as error:
            cause = listening.failures[0] if listening.failures else error
            listening.close(cause)
            if cause is not error:
                raise cause from error
            raise
        listening.close(None)
        return result
