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

_settings_lock = threading.Lock()
"""Held while a run replaces Ray Data's settings, of which a process has one set."""


class DatasetError(PhasebusError):
    """Raised when a pipeline cannot have phases: another one runs in this process, or Ray Data is not supported."""


async def run_dataset(
    config: DatasetConfig, pipeline: Callable[[], T], *, telemetry: Telemetry | None = None, bus: Bus | None = None
) -> T:
    """Run a pipeline of Ray Data. Every execution in it has phases, and each of its operators is a step.

    While the pipeline runs, its settings replace those of Ray Data in this process. Therefore one pipeline runs at a time,
    and the pipeline must build its dataset. A cancellation ends the execution and waits for its end.

    Args:
        config: The callbacks and observers, and the settings they may change.
        pipeline: Builds the dataset and consumes it, such as ``lambda: ray.data.range(10).map(f).take_all()``; called
            in a thread of its own. A dataset that it returns unconsumed is executed later, without phases.
        telemetry: An open `Telemetry`; by default a new one without the HTTP service.
        bus: An open bus; by default a new one with the built-in observers.

    Raises:
        DatasetError: Another pipeline runs in this process, or Ray Data lacks a required part.
        Exception: The error of the pipeline, or of a callback with a note that names the callback.
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
    """Run the pipeline with the settings that the callbacks chose."""
    if not _settings_lock.acquire(blocking=False):
        raise DatasetError(
            f"{run.config.name!r} cannot run beside another pipeline of run_dataset in this process: Ray Data has one "
            "set of settings per process; await one pipeline before you start the next"
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
            registered.remove(observer)  # datasets keep this list after the run
            run.leave()
    except Exception:
        if run.failure is None:
            raise
    finally:
        _settings_lock.release()
    if run.failure is not None:  # even if the pipeline caught it or raised another error
        raise run.failure
    _warn_if_unobserved(result, run)
    return result


def _warn_if_unobserved(result: object, run: DatasetRun) -> None:
    """Log a warning if a pipeline returned data and no execution of it was observed."""
    from ray.data import Dataset

    if not run.executions and not isinstance(result, Dataset):
        logger.warning(
            "the pipeline %r has returned, and no execution of Ray Data was seen in it: a dataset that is built "
            "outside the pipeline is executed without phases and without the changes of callbacks",
            run.config.name,
        )


def _settings(run: DatasetRun) -> Any:
    """Return Ray Data's settings for a run.

    Raises:
        DatasetError: This Ray Data has no execution callbacks, or no context manager for its settings.
    """
    from ray import __version__ as ray_version
    from ray.data import DataContext, ExecutionResources

    settings: Any = DataContext.get_current().copy()
    callbacks = getattr(settings, "custom_execution_callback_classes", None)
    if callbacks is None or not hasattr(DataContext, "current"):
        raise DatasetError(
            f"Ray Data {ray_version} lacks the execution callbacks that phasebus needs; use a supported version of Ray"
        )
    settings.custom_execution_callback_classes = LocalCallbacks(callbacks)
    if (size := run.context[MAX_BLOCK_BYTES]) is not None:
        settings.target_max_block_size = size
    if limits := run.context[RESOURCE_LIMITS]:
        settings.execution_options.resource_limits = ExecutionResources.for_limits(**limits)
    return settings
