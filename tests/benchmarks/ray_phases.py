"""What phases cost a pipeline of Ray Data and a run of Ray Train: wall time with them, to that without."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partialmethod
from statistics import median
from time import perf_counter
from typing import Any

from phasebus.bus import PhaseEvent
from phasebus.initializer.integrations.datasets import DatasetConfig, run_dataset
from phasebus.initializer.integrations.training import TrainingConfig, run_training
from tests.benchmarks.measuring import Number, Table

ROUNDS = 5
REPORTS = 60


def look(event: PhaseEvent) -> None:
    """Be a callback."""


def _pipeline() -> None:
    import ray

    def work(row: dict[str, Any]) -> dict[str, Any]:
        return {"id": sum(range(20_000)) + row["id"]}

    ray.data.range(20_000, override_num_blocks=40).map(work).materialize()


def _pipeline_with() -> None:
    asyncio.run(run_dataset(DatasetConfig(callbacks=[look]), _pipeline))


def _loop(config: dict[str, Any]) -> None:
    from ray import train

    for epoch in range(REPORTS):
        time.sleep(0.1)
        train.report({"epoch": epoch})


def _run_config() -> Any:
    from ray.train.v2.api.config import RunConfig

    return RunConfig(storage_path=tempfile.mkdtemp())


def _train() -> None:
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    DataParallelTrainer(_loop, train_loop_config={}, run_config=_run_config()).fit()


def _train_with() -> None:
    asyncio.run(run_training(TrainingConfig(train_loop=_loop, callbacks=[look], run_config=_run_config())))


def _ratio(on: Callable[[], None], off: Callable[[], None]) -> tuple[float, float]:
    """Return the median ratio, and the median seconds without; each goes first in every other round."""
    ratios, without = [], []
    for number in range(ROUNDS + 1):
        took = {}
        for run in (on, off) if number % 2 else (off, on):
            began = perf_counter()
            run()
            took[run] = perf_counter() - began
        if number:  # the first round starts Ray's workers
            ratios.append(took[on] / took[off])
            without.append(took[off])
    return median(ratios), median(without)


def _steady_train() -> None:
    """Have Ray Train look for reports ten times a second, and end its runs when they have ended.

    By default it looks every two seconds, and at the end it waits for a helper that wakes every second: so what a run
    takes depends on when in these it ends. Both are set for the runs with phases and for those without.
    """
    from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

    os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.1"
    PlacementGroupCleanerCallback.__init__ = partialmethod(
        PlacementGroupCleanerCallback.__init__, check_interval_s=0.05
    )


def tables() -> Iterator[Table]:
    """Measure, and return what there is to print."""
    import ray
    from ray import cloudpickle

    os.environ.setdefault("PHASEBUS_STATE_DIR", tempfile.mkdtemp())
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    _steady_train()
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        data = _ratio(_pipeline_with, _pipeline)
        training = _ratio(_train_with, _train)
    finally:
        ray.shutdown()
    table = Table(
        "Ray Data and Ray Train: wall time with a callback and every built-in observer, to that without",
        ["", "on / off", "seconds without"],
        notes=[f"Median of {ROUNDS} rounds. On a busy machine one run differs from the next by more than the mark."],
    )
    for name, (ratio, seconds) in (("a pipeline", data), (f"a run of {REPORTS} reports", training)):
        table.rows.append([name, Number(ratio, "x", 1.01), f"{seconds:.1f}"])
    yield table
