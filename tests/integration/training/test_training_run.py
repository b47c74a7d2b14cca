"""Real runs of Ray Train with phases."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from phasebus.bus import Context, PhaseEvent, StepEvent, StepFailed, StepFinished
from phasebus.initializer import LLMConfig, initialize_node
from phasebus.initializer.integrations.training import (
    CHECKPOINT,
    LOOP_CONFIG,
    METRICS,
    SCALING_CONFIG,
    STOP,
    CheckpointSaved,
    PreTraining,
    Reported,
    TrainingConfig,
    TrainingError,
    WorkersFailed,
    run_training,
)
from phasebus.initializer.integrations.training.rpc import RpcClient
from phasebus.observers import MetricsObserver
from phasebus.telemetry import Metrics
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.usefixtures("ray_cluster", "own_folder"),
    pytest.mark.filterwarnings("default"),  # those of Ray Train's own code
]


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray import cloudpickle

    monkeypatch.setenv("PHASEBUS_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")  # how often Ray looks for reports; else every 2 s
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the workers cannot import a test


def loop(config: dict[str, Any]) -> None:
    import tempfile

    from ray import train

    resumed = train.get_checkpoint() is not None
    for epoch in range(config["epochs"]):
        if epoch == config.get("fails_at") and not resumed:
            raise ValueError("loss is not a number")
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = train.Checkpoint.from_directory(folder)
            workers = train.get_context().get_world_size()
            known = "phasebus" in sys.modules
            train.report({"epoch": epoch, "workers": workers, "phasebus": known}, checkpoint=checkpoint)


def config(tmp_path: Path, *callbacks: Any, failures: int = 0, **loop_config: Any) -> TrainingConfig:
    from ray.train.v2.api.config import FailureConfig, RunConfig

    return TrainingConfig(
        train_loop=loop,
        loop_config=loop_config,
        run_config=RunConfig(
            name="run",
            storage_path=str(tmp_path / "results"),
            failure_config=FailureConfig(max_failures=failures),
        ),
        callbacks=list(callbacks),
    )


class Watch:
    def __init__(self) -> None:
        self.events: list[Any] = []

    def observe(self, event: StepEvent | PhaseEvent) -> None:
        self.events.append(event)

    @property
    def failed(self) -> set[str]:
        return {event.kind for event in self.events if isinstance(event, StepFailed)}

    @property
    def moments(self) -> list[str]:
        return [event.phase for event in self.events if isinstance(event, PhaseEvent)]


class Broken:
    def observe(self, event: StepEvent) -> None:
        raise RuntimeError("the disk is full")


async def nothing_is_in_use() -> None:
    import ray

    cpus = ray.cluster_resources()["CPU"]
    await anyio.to_thread.run_sync(
        wait_until, lambda: ray.available_resources().get("CPU") == cpus, "what the workers had is free again"
    )


async def test_callbacks_change_a_training_run_and_its_reports(tmp_path: Path) -> None:
    from ray.train import Result
    from ray.train.v2.api.config import ScalingConfig

    checkpoints: list[Any] = []

    def change(event: PreTraining, context: Context) -> None:
        context[LOOP_CONFIG] = {"epochs": 2}
        context[SCALING_CONFIG] = ScalingConfig(num_workers=2, resources_per_worker={"CPU": 0.5})

    def add(event: Reported, context: Context) -> None:
        context[METRICS] = {**context[METRICS], "team": "blue"}

    def keep(event: CheckpointSaved, context: Context) -> None:
        checkpoints.append(context[CHECKPOINT])

    watch = Watch()
    result = await run_training(config(tmp_path, change, add, keep, Broken(), watch, epochs=50))
    assert result.metrics == {"epoch": 1, "workers": 2, "phasebus": False, "team": "blue"}
    assert watch.moments == [
        *("pre_training", "pre_worker_group", "post_worker_group"),
        *("reported", "checkpoint_saved") * 2,
        "post_training",
    ]
    ends = {event.kind: event for event in watch.events if event.__class__ is StepFinished}
    assert set(ends) == {"training", "training_workers", "training_report"}
    assert ends["training_workers"].parent == ends["training"].step
    assert ends["training_report"].parent == ends["training_workers"].step
    assert ends["training_report"].attributes == {"number": 2, "checkpoint": True}
    assert checkpoints[-1] == result.checkpoint.path
    assert Result.from_path(result.path).metrics == result.metrics  # what was added is stored with the rest


async def test_a_callback_stops_the_run_and_it_ends_well(tmp_path: Path) -> None:
    def enough(event: Reported, context: Context) -> None:
        context[STOP] = context[METRICS]["epoch"] >= 1

    watch = Watch()
    result = await run_training(config(tmp_path, enough, watch, epochs=100_000))
    assert result.error is None
    assert result.metrics["epoch"] == 1
    assert not watch.failed


async def test_an_error_of_a_callback_fails_the_run_with_the_callbacks_name_on_it(tmp_path: Path) -> None:
    def check_loss(event: Reported) -> None:
        raise ArithmeticError("the loss grows")

    watch = Watch()
    with pytest.raises(ArithmeticError, match="the loss grows") as caught:
        await run_training(config(tmp_path, check_loss, watch, epochs=3, failures=-1))
    assert "raised by the callback 'check_loss' during phase 'reported'" in caught.value.__notes__
    assert watch.failed == {"callback", "training_report", "training_workers", "training"}
    assert watch.moments.count("pre_worker_group") == 1  # it is not the workers' failure, and nothing to try again


@pytest.mark.parametrize("moment", ["pre_worker_group", "post_worker_group"])
async def test_an_error_of_a_callback_before_the_workers_train_fails_the_run_and_ends_them(
    tmp_path: Path, moment: str
) -> None:
    def refuse(phase: str, config: Any, data: Any) -> None:
        if phase == moment:
            raise PermissionError("not at night")

    watch = Watch()
    with pytest.raises(PermissionError, match="not at night"):
        await run_training(config(tmp_path, refuse, watch, epochs=3))
    assert watch.failed == {"callback", "training_workers", "training"}
    assert watch.moments[-1] == moment
    await nothing_is_in_use()


async def test_failed_workers_and_their_successors_are_published(tmp_path: Path) -> None:
    seen: list[dict[int, str]] = []

    def note(event: WorkersFailed, context: Context) -> None:
        seen.append(context["worker_errors"])

    watch = Watch()
    result = await run_training(config(tmp_path, note, watch, epochs=3, fails_at=1, failures=1))
    assert result.metrics["epoch"] == 2
    assert seen == [{0: "ValueError: loss is not a number"}]
    groups = [
        (type(event).__name__, event.attributes["attempt"])
        for event in watch.events
        if isinstance(event, StepFailed | StepFinished) and event.kind == "training_workers"
    ]
    assert groups == [("StepFailed", 1), ("StepFinished", 2)]


async def test_a_run_whose_workers_fail_finally_raises_rays_error(tmp_path: Path) -> None:
    from ray.train import TrainingFailedError

    watch = Watch()
    with pytest.raises(TrainingFailedError, match="loss is not a number"):
        await run_training(config(tmp_path, watch, epochs=3, fails_at=0))
    assert watch.failed == {"training_workers", "training"}
    assert watch.moments[-1] == "workers_failed"


async def test_cancelling_ends_the_run_and_its_workers(tmp_path: Path) -> None:
    reported = anyio.Event()

    async def note(event: Reported) -> None:
        reported.set()

    watch = Watch()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_training, config(tmp_path, note, watch, epochs=100_000))
        await reported.wait()
        tasks.cancel_scope.cancel()
    ended = {event.kind: event.outcome for event in watch.events if isinstance(event, StepFailed)}
    assert ended["training_workers"] == ended["training"] == "cancelled"
    await nothing_is_in_use()


def test_the_controllers_callback_needs_no_phasebus_in_its_environment() -> None:
    from ray import cloudpickle

    from phasebus.initializer.integrations.training.controller import ControllerCallback, attach

    trainer = SimpleNamespace(run_config=config(Path("/results")).run_config)
    attach(trainer, RpcClient("/nowhere"))
    given = cloudpickle.dumps(trainer.run_config.callbacks)
    script = "import pickle, sys; sys.modules['phasebus'] = None; print(pickle.loads(sys.stdin.buffer.read()))"
    ended = subprocess.run([sys.executable, "-c", script], input=given, capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr.decode()
    assert ControllerCallback.__name__ in ended.stdout.decode()


async def test_a_configuration_that_is_not_rays_is_refused_before_anything_starts(tmp_path: Path) -> None:
    def write_a_mapping(event: PreTraining, context: Context) -> None:
        context[SCALING_CONFIG] = {"num_workers": 1}

    with pytest.raises(TrainingError, match=r"scaling_config is .*, not a ray.train.ScalingConfig"):
        await run_training(config(tmp_path, write_a_mapping))


async def test_one_metrics_observer_watches_a_run_and_the_start_of_a_node(tmp_path: Path) -> None:
    metrics = Metrics()
    observer = MetricsObserver(metrics)
    (tmp_path / "config.json").write_text("{}")  # which makes it a model
    await run_training(config(tmp_path, observer, epochs=1))
    async with await initialize_node(LLMConfig(model=str(tmp_path), engine="none", callbacks=[observer])):
        pass

    def count(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(f"{name}_seconds_count", labels)

    assert count("phasebus_training_duration", training="training") == 1
    assert count("phasebus_training_report_duration", training="training") == 1
    assert count("phasebus_phase_duration", phase="download") == 1
