"""`run_dataset`: a Ray Data pipeline with phases."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from phasebus.bus import Bus, Context
from phasebus.initializer.assembly import watched
from phasebus.initializer.beside import call_beside
from phasebus.initializer.datasets.config import DatasetConfig
from phasebus.initializer.datasets.events import (
    DATASET,
    DATASET_KEYS,
    MAX_BLOCK_BYTES,
    RESOURCE_LIMITS,
    RESULT,
    PostDataset,
    PreDataset,
)
from phasebus.initializer.datasets.execution import DatasetRun, ExecutionWatch, StaysHere
from phasebus.telemetry import Telemetry

T = TypeVar("T")


async def run_dataset(
    config: DatasetConfig, pipeline: Callable[[], T], *, telemetry: Telemetry | None = None, bus: Bus | None = None
) -> T:
    """Run a pipeline of Ray Data; every execution in it has its phases, and each of its operators is a step.

    While it runs, Ray Data's settings in this process are those of this run; so one pipeline runs at a time. When this
    is cancelled, the execution is ended, and that is waited for.

    Args:
        config: The callbacks and observers, and the settings they may change.
        pipeline: Builds the dataset and consumes it, such as ``lambda: ray.data.range(10).map(f).take_all()``; called
            in a thread of its own. What it leaves unconsumed is executed without phases.
        telemetry: Open telemetry that is to carry what is seen; by default one of its own, without the HTTP service.
        bus: An open bus; by default one of its own, with the built-in observers on it.

    Raises:
        Exception: What the pipeline or a callback raised; if a callback did, a note names it.
    """
    context = Context(
        {MAX_BLOCK_BYTES: config.max_block_bytes, RESOURCE_LIMITS: config.resource_limits}, keys=DATASET_KEYS
    )
    async with (
        watched(config.name, config.callbacks, telemetry, bus) as opened,
        opened.step(DATASET, config.name) as step,
    ):
        await opened.publish(PreDataset(config=config), context)
        run = DatasetRun(opened.threads(), config, context, step.id)
        context[RESULT] = await call_beside(partial(_run, pipeline, run), run.notice_cancellation)
        await opened.publish(PostDataset(config=config), context)
        result: T = context[RESULT]
        return result


def _run(pipeline: Callable[[], T], run: DatasetRun) -> T:
    """Run the pipeline with Ray Data's settings as the callbacks have left them."""
    from ray.data import DataContext, ExecutionResources

    settings: Any = DataContext.get_current().copy()
    settings.custom_execution_callback_classes = StaysHere(
        [*settings.custom_execution_callback_classes, partial(ExecutionWatch, run)]
    )
    if (size := run.context[MAX_BLOCK_BYTES]) is not None:
        settings.target_max_block_size = size
    if limits := run.context[RESOURCE_LIMITS]:
        settings.execution_options.resource_limits = ExecutionResources.for_limits(**limits)
    with DataContext.current(settings):
        try:
            return pipeline()
        except Exception as error:
            if run.failure is not None and error is not run.failure:
                raise run.failure from error
            raise
