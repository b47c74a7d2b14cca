"""`run_dataset`: a Ray Data pipeline with phases."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from phasebus.bus import Bus, Context, PhasebusError
from phasebus.initializer.integrations.datasets.config import DatasetConfig
from phasebus.initializer.integrations.datasets.events import (
    DATASET,
    DATASET_KEYS,
    MAX_BLOCK_BYTES,
    RESOURCE_LIMITS,
    RESULT,
    PostDataset,
    PreDataset,
)
from phasebus.initializer.integrations.datasets.execution import DatasetRun, ExecutionObserver, LocalCallbacks
from phasebus.initializer.pipeline.blocking import call_beside
from phasebus.initializer.pipeline.callbacks import Spelling, publish_phase
from phasebus.initializer.pipeline.wiring import watched
from phasebus.telemetry import Telemetry

T = TypeVar("T")

logger = logging.getLogger("phasebus.dataset")

_alone = threading.Lock()
"""Held while Ray Data's settings, of which there is one set for the whole process, are those of a run."""


class DatasetError(PhasebusError):
    """Raised when a pipeline cannot have phases: another one runs in this process, or Ray Data is an unknown one."""


async def run_dataset(
    config: DatasetConfig, pipeline: Callable[[], T], *, telemetry: Telemetry | None = None, bus: Bus | None = None
) -> T:
    """Run a pipeline of Ray Data; every execution in it has its phases, and each of its operators is a step.

    While it runs, Ray Data's settings in this process are those of this run; so one pipeline runs at a time, and a
    dataset has to be built by it. When this is cancelled, the execution is ended, and that is waited for.

    Args:
        config: The callbacks and observers, and the settings they may change.
        pipeline: Builds the dataset and consumes it, such as ``lambda: ray.data.range(10).map(f).take_all()``; called
            in a thread of its own. What it leaves unconsumed is executed without phases, whenever that is.
        telemetry: Open telemetry that is to carry what is seen; by default one of its own, without the HTTP service.
        bus: An open bus; by default one of its own, with the built-in observers on it.

    Raises:
        DatasetError: Another pipeline runs in this process, or Ray Data lacks what is needed of it.
        Exception: What the pipeline or a callback raised; if a callback did, a note names it.
    """
    context = Context(
        {MAX_BLOCK_BYTES: config.max_block_bytes, RESOURCE_LIMITS: config.resource_limits}, keys=DATASET_KEYS
    )
    async with (
        watched(config.name, config.callbacks, telemetry, bus) as opened,
        opened.step(DATASET, config.name) as step,
    ):
        spelling = Spelling(DATASET_KEYS)
        await publish_phase(opened, PreDataset(config=config), context, spelling)
        run = DatasetRun(opened.threads(), config, context, step.id, spelling)
        context[RESULT] = await call_beside(partial(_run, pipeline, run), run.notice_cancellation)
        await publish_phase(opened, PostDataset(config=config), context, spelling)
        result: T = context[RESULT]
        return result


def _run(pipeline: Callable[[], T], run: DatasetRun) -> T:
    """Run the pipeline with Ray Data's settings as the callbacks have left them."""
    if not _alone.acquire(blocking=False):
        raise DatasetError(
            f"{run.config.name!r} cannot run beside another pipeline of run_dataset in this process: Ray Data has one "
            "set of settings for all; await the one, then the other"
        )
    observer = partial(ExecutionObserver, run)
    try:
        settings = _settings(run)
        registered = settings.custom_execution_callback_classes
        registered.append(observer)
        try:
            with type(settings).current(settings):
                result = pipeline()
        finally:
            registered.remove(observer)  # for datasets keep the list that they were built with
            run.leave()
    except Exception:
        if run.failure is None:
            raise
    finally:
        _alone.release()
    if run.failure is not None:  # whatever the pipeline has made of it
        raise run.failure
    _warn_of_unseen(result, run)
    return result


def _warn_of_unseen(result: object, run: DatasetRun) -> None:
    """Say so if data has come of a pipeline, and no execution of it was seen."""
    from ray.data import Dataset

    if not run.executions and not isinstance(result, Dataset):
        logger.warning(
            "the pipeline %r has returned, and no execution of Ray Data was seen in it: a dataset that was built "
            "outside of it is executed without phases, and without what callbacks have changed",
            run.config.name,
        )


def _settings(run: DatasetRun) -> Any:
    """Return Ray Data's settings for a run.

    Raises:
        DatasetError: Ray Data knows no callbacks of executions, or no settings for a while.
    """
    from ray import __version__ as ray_version
    from ray.data import DataContext, ExecutionResources

    settings: Any = DataContext.get_current().copy()
    callbacks = getattr(settings, "custom_execution_callback_classes", None)
    if callbacks is None or not hasattr(DataContext, "current"):
        raise DatasetError(
            f"Ray Data {ray_version} lacks what its executions' phases need; they were made for Ray 2.60"
        )
    settings.custom_execution_callback_classes = LocalCallbacks(callbacks)
    if (size := run.context[MAX_BLOCK_BYTES]) is not None:
        settings.target_max_block_size = size
    if limits := run.context[RESOURCE_LIMITS]:
        settings.execution_options.resource_limits = ExecutionResources.for_limits(**limits)
    return settings
