"""What phases cost a pipeline of Ray Data and a run of Ray Train: wall time with them, to that without."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from statistics import median
from time import perf_counter
from typing import Any

from phasebus.bus import PhaseEvent
from phasebus.initializer.datasets import DatasetConfig, run_dataset
from phasebus.initializer.training import TrainingConfig, run_training
from tests.benchmarks.measuring import Number, Table

ROUNDS = 5


def look(event: PhaseEvent) -> None:
    """Be a callback."""


def _pipeline() -> None:
    import ray

    def work(row: dict[str, Any]) -> dict[str, Any]:
        return {"id": sum(range(20_000)) + row["id"]}

    ray.data.range(4_000, override_num_blocks=16).map(work).materialize()


def _loop() -> None:
    import time

    from ray import train

    for epoch in range(20):
        time.sleep(0.1)
        train.report({"epoch": epoch})


def _run_config() -> Any:
    from ray.train.v2.api.config import RunConfig

    return RunConfig(storage_path=tempfile.mkdtemp())


def _train_with() -> None:
    asyncio.run(run_training(TrainingConfig(train_loop=_loop, callbacks=[look], run_config=_run_config())))


def _train_without() -> None:
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    DataParallelTrainer(_loop, run_config=_run_config()).fit()


def _ratio(on: Callable[[], object], off: Callable[[], object]) -> tuple[float, float]:
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


def tables() -> Iterator[Table]:
    """Measure, and return what there is to print."""
    import ray
    from ray import cloudpickle

    os.environ.setdefault("PHASEBUS_STATE_DIR", tempfile.mkdtemp())
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        data = _ratio(
            lambda: asyncio.run(run_dataset(DatasetConfig(callbacks=[look]), _pipeline)),
            _pipeline,
        )
        training = _ratio(_train_with, _train_without)
    finally:
        ray.shutdown()
    table = Table(
        "Ray Data and Ray Train: wall time with a callback and every built-in observer, to that without",
        ["", "on / off", "seconds without"],
        notes=["Median of 5 rounds. On a busy machine one run differs from the next by more than the mark."],
    )
    for name, (ratio, seconds) in (("a pipeline", data), ("a run of 20 reports", training)):
        table.rows.append([name, Number(ratio, "x", 1.01), f"{seconds:.1f}"])
    yield table
