"""`run_training`: a run of Ray Train with phases."""

from __future__ import annotations

from typing import Any

from phasebus.bus import Bus, Context, PhasebusError
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
from phasebus.initializer.integrations.training.handler import ControllerHandler
from phasebus.initializer.integrations.training.rpc import RpcClient, call_with_server
from phasebus.initializer.pipeline.callbacks import Spelling, publish_phase
from phasebus.initializer.pipeline.wiring import watched
from phasebus.telemetry import Telemetry


class TrainingError(PhasebusError):
    """Raised when a run cannot start: no controller, a configuration of the wrong class, or an unsupported Ray Train."""


async def run_training(config: TrainingConfig, *, telemetry: Telemetry | None = None, bus: Bus | None = None) -> Any:
    """Train with Ray Train v2; return its Result.

    The callbacks run in this process. Ray's controller waits for them; its workers do not. A cancellation ends the run and
    its workers, which takes some seconds.

    Args:
        config: The training function, and the callbacks.
        telemetry: An open `Telemetry`; by default a new one without the HTTP service.
        bus: An open bus; by default a new one with the built-in observers.

    Raises:
        TrainingError: The run has no workers (``num_workers=0``) and so no controller; its scaling_config or run_config
            has the wrong class; or Ray Train lacks a required class.
        Exception: The error of a callback, with a note that names it; else Ray's TrainingFailedError.
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
        await publish_phase(opened, PreTraining(config=config), context, spelling)
        _check_configs(context)
        context[RESULT] = await _fit(config, context, ControllerHandler(opened, config, context, step.id, spelling))
        await publish_phase(opened, PostTraining(config=config), context, spelling)
        return context[RESULT]


def _check_configs(context: Context) -> None:
    """Raise TrainingError if a callback replaced a configuration of Ray with an object of another class."""
    for key, name, field in (SCALING_CONFIG, "ScalingConfig", "num_workers"), (RUN_CONFIG, "RunConfig", "callbacks"):
        if not hasattr(context[key], field):
            raise TrainingError(f"{key!s} is {context[key]!r}, not a ray.train.{name}; set ray.train.{name}(…)")


async def _fit(config: TrainingConfig, context: Context, handler: ControllerHandler) -> Any:
    """Run the trainer and serve the calls of its controller."""

    def fit(address: str) -> Any:
        return _trainer(config, context, RpcClient(address)).fit()

    try:
        result = await call_with_server(fit, handler.handle)
    except Exception as error:
        await handler.close(handler.failure or error)
        if handler.failure is None:
            raise
    except BaseException as error:
        await handler.close(error)
        raise
    else:
        await handler.close(None)
    if handler.failure is not None:  # rather than Ray's error that wraps it
        raise handler.failure
    return result


def _trainer(config: TrainingConfig, context: Context, client: RpcClient) -> Any:
    """Return Ray's trainer, built from the context.

    Raises:
        TrainingError: Its run would have no controller, or Ray Train lacks a required class.
    """
    if context[SCALING_CONFIG].num_workers == 0:
        raise TrainingError("num_workers=0 trains in this process, without a controller and its phases; use at least 1")
    from ray import __version__ as ray_version
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    try:
        from phasebus.initializer.integrations.training.controller import attach
    except ImportError as error:
        raise TrainingError(
            f"Ray Train {ray_version} is not supported ({error}); phasebus supports Ray 2.60"
        ) from error
    trainer = (config.trainer or DataParallelTrainer)(
        config.train_loop,
        train_loop_config=context[LOOP_CONFIG],
        scaling_config=context[SCALING_CONFIG],
        run_config=context[RUN_CONFIG],
        **context[TRAINER_OPTIONS],
    )
    attach(trainer, client)
    return trainer
