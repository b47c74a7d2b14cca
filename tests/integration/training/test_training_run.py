"""Real runs of Ray Train with phases."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from phasebus.bus import Context, PhaseEvent, StepEvent, StepFailed, StepFinished
from phasebus.initializer.training import (
    LOOP_CONFIG,
    METRICS,
    STOP,
    PreTraining,
    Reported,
    TrainingConfig,
    WorkersFailed,
    run_training,
)
from phasebus.observers import MetricsObserver
from phasebus.telemetry import Metrics

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.usefixtures("ray_cluster", "own_folder"),
    pytest.mark.filterwarnings("default"),  # those of Ray Train's own code
]


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray import cloudpickle

    monkeypatch.setenv("PHASEBUS_STATE_DIR", str(tmp_path))
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the workers cannot import a test


def loop(config: dict[str, Any]) -> None:
    import tempfile

    from ray import train

    for epoch in range(config["epochs"]):
        if epoch == config.get("fails_at"):
            raise ValueError("loss is not a number")
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = train.Checkpoint.from_directory(folder)
            train.report({"epoch": epoch}, checkpoint=checkpoint)


def config(tmp_path: Path, *callbacks: Any, **loop_config: Any) -> TrainingConfig:
    from ray.train.v2.api.config import RunConfig

    return TrainingConfig(
        train_loop=loop,
        loop_config=loop_config,
        run_config=RunConfig(name="run", storage_path=str(tmp_path / "results")),
        callbacks=list(callbacks),
    )


class Watch:
    def __init__(self) -> None:
        self.events: list[Any] = []

    def observe(self, event: StepEvent | PhaseEvent) -> None:
        self.events.append(event)


class Broken:
    def observe(self, event: StepEvent) -> None:
        raise RuntimeError("the disk is full")


async def test_a_run_has_its_phases_and_callbacks_change_it_and_what_it_reports(tmp_path: Path) -> None:
    def shorten(event: PreTraining, context: Context) -> None:
        context[LOOP_CONFIG] = {"epochs": 2}

    def add(event: Reported, context: Context) -> None:
        context[METRICS] = {**context[METRICS], "team": "blue"}

    watch, metrics = Watch(), Metrics()
    result = await run_training(config(tmp_path, shorten, add, Broken(), watch, MetricsObserver(metrics), epochs=50))
    assert result.metrics == {"epoch": 1, "team": "blue"}
    moments = [event.phase for event in watch.events if isinstance(event, PhaseEvent)]
    assert moments == [
        *("pre_training", "pre_worker_group", "post_worker_group"),
        *("reported", "reported", "post_training"),
    ]
    ends = {event.kind: event for event in watch.events if event.__class__ is StepFinished}
    assert set(ends) == {"training", "worker_group", "report"}
    assert ends["worker_group"].parent == ends["training"].step
    assert ends["report"].attributes == {"number": 2, "checkpoint": True}
    labels = {"kind": "training", "step": "training", "outcome": "finished"}
    assert metrics.registry.get_sample_value("phasebus_step_duration_seconds_count", labels) == 1
    from ray.train import Result

    assert Result.from_path(result.path).metrics == {"epoch": 1, "team": "blue"}  # stored, too


async def test_a_callback_stops_the_run_and_it_ends_well(tmp_path: Path) -> None:
    def enough(event: Reported, context: Context) -> None:
        context[STOP] = context[METRICS]["epoch"] >= 1

    result = await run_training(config(tmp_path, enough, epochs=100_000))
    assert result.error is None
    assert 1 <= result.metrics["epoch"] < 1000


async def test_an_error_of_a_callback_fails_the_run_with_the_callbacks_name_on_it(tmp_path: Path) -> None:
    def check_loss(event: Reported) -> None:
        raise ArithmeticError("the loss grows")

    watch = Watch()
    with pytest.raises(ArithmeticError, match="the loss grows") as caught:
        await run_training(config(tmp_path, check_loss, watch, epochs=3))
    assert "raised by the callback 'check_loss' during phase 'reported'" in caught.value.__notes__
    failed = {event.kind for event in watch.events if isinstance(event, StepFailed)}
    assert failed == {"callback", "report", "worker_group", "training"}


async def test_workers_that_fail_are_told_of(tmp_path: Path) -> None:
    from ray.train import TrainingFailedError

    seen: list[dict[int, str]] = []

    def note(event: WorkersFailed, context: Context) -> None:
        seen.append(context["worker_errors"])

    with pytest.raises(TrainingFailedError, match="loss is not a number"):
        await run_training(config(tmp_path, note, epochs=3, fails_at=1))
    assert seen == [{0: "ValueError: loss is not a number"}]
