"""`run_training`: a run of Ray Train with phases."""

from __future__ import annotations

from typing import Any

from phasebus.bus import Bus, Context, PhasebusError
from phasebus.initializer.integrations.training.answers import Answers
from phasebus.initializer.integrations.training.config import TrainingConfig
from phasebus.initializer.integrations.training.events import (
    LOOP_CONFIG,
    RESULT,
    RUN_CONFIG,
    SCALING_CONFIG,
    TRAINER_OPTIONS,
    TRAINING,
    TRAINING_KEYS,
    PostTraining,
    PreTraining,
)
from phasebus.initializer.integrations.training.line import Line, call_answering
from phasebus.initializer.pipeline.callbacks import Spelling, ask
from phasebus.initializer.pipeline.wiring import watched
from phasebus.telemetry import Telemetry


class TrainingError(PhasebusError):
    """Raised when a run cannot be had: it has no controller, or no configuration of Ray's, or Ray Train is unknown."""


async def run_training(config: TrainingConfig, *, telemetry: Telemetry | None = None, bus: Bus | None = None) -> Any:
    """Train with Ray Train v2; return its Result.

    The callbacks run in this process. Ray's controller waits for them, and the workers go on meanwhile. When this is
    cancelled, the run is ended, its workers with it, and that is waited for: some seconds.

    Args:
        config: What is trained, and the callbacks that may change how.
        telemetry: Open telemetry that is to carry what is seen; by default one of its own, without the HTTP service.
        bus: An open bus; by default one of its own, with the built-in observers on it.

    Raises:
        TrainingError: The run is one without workers (``num_workers=0``), which has no controller; its scaling_config or
            run_config is not Ray's; or Ray Train lacks what is needed of it.
        Exception: What a callback raised, with a note that names it; else Ray's TrainingFailedError.
    """
    from ray.train.v2.api.config import RunConfig, ScalingConfig

    context = Context(
        {
            LOOP_CONFIG: config.loop_config,
            SCALING_CONFIG: config.scaling_config or ScalingConfig(),
            RUN_CONFIG: config.run_config or RunConfig(),
            TRAINER_OPTIONS: config.trainer_options,
        },
        keys=TRAINING_KEYS,
    )
    async with (
        watched(config.name, config.callbacks, telemetry, bus) as opened,
        opened.step(TRAINING, config.name) as step,
    ):
        spelling = Spelling(TRAINING_KEYS)
        await ask(opened, PreTraining(config=config), context, spelling)
        _check_configs(context)
        context[RESULT] = await _fit(config, context, Answers(opened, config, context, step.id, spelling))
        await ask(opened, PostTraining(config=config), context, spelling)
        return context[RESULT]


def _check_configs(context: Context) -> None:
    """Raise TrainingError if Ray's configurations are not what Ray takes."""
    for key, name, field in (SCALING_CONFIG, "ScalingConfig", "num_workers"), (RUN_CONFIG, "RunConfig", "callbacks"):
        if not hasattr(context[key], field):
            raise TrainingError(f"{key!s} is {context[key]!r}; it has to be Ray's: ray.train.{name}(…)")


async def _fit(config: TrainingConfig, context: Context, answers: Answers) -> Any:
    """Run the trainer; its controller is answered meanwhile."""

    def fit(address: str) -> Any:
        return _trainer(config, context, Line(address)).fit()

    try:
        result = await call_answering(fit, answers.answer)
    except Exception as error:
        await answers.close(answers.failure or error)
        if answers.failure is None:
            raise
    except BaseException as error:
        await answers.close(error)
        raise
    else:
        await answers.close(None)
    if answers.failure is not None:  # whatever Ray has made of it
        raise answers.failure
    return result


def _trainer(config: TrainingConfig, context: Context, line: Line) -> Any:
    """Return Ray's trainer, as the callbacks want it.

    Raises:
        TrainingError: Its run would have no controller, or Ray Train lacks what is needed of it.
    """
    if context[SCALING_CONFIG].num_workers == 0:
        raise TrainingError("num_workers=0 trains in this process, without a controller to hear of; use at least 1")
    from ray import __version__ as ray_version
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    try:
        from phasebus.initializer.integrations.training.controller import watch
    except ImportError as error:
        raise TrainingError(
            f"Ray Train {ray_version} lacks what its runs' phases need ({error}); they were made for Ray 2.60"
        ) from error
    trainer = (config.trainer or DataParallelTrainer)(
        config.train_loop,
        train_loop_config=context[LOOP_CONFIG],
        scaling_config=context[SCALING_CONFIG],
        run_config=context[RUN_CONFIG],
        **context[TRAINER_OPTIONS],
    )
    watch(trainer, line)
    return trainer
