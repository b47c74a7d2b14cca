"""Real Ray Data pipelines with phases."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import anyio
import pytest

from phasebus.bus import Bus, Context, PhaseEvent, StepEvent, StepFailed, StepFinished, StepProgress, StepStarted
from phasebus.initializer import CallbackError
from phasebus.initializer.integrations.datasets import (
    MAX_BLOCK_BYTES,
    OPERATORS,
    RESOURCE_LIMITS,
    RESULT,
    DatasetConfig,
    DatasetError,
    PostDataset,
    PostExecution,
    PreDataset,
    PreExecution,
    run_dataset,
)
from phasebus.observers import MetricsObserver
from phasebus.telemetry import Metrics

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.usefixtures("ray_cluster", "own_folder"),
    pytest.mark.filterwarnings("default"),  # those of Ray Data's own code
]


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHASEBUS_STATE_DIR", str(tmp_path))


class Watch:
    def __init__(self) -> None:
        self.events: list[Any] = []

    def observe(self, event: StepEvent | PhaseEvent) -> None:
        self.events.append(event)


def doubled() -> list[int]:
    import ray

    rows = ray.data.range(100, override_num_blocks=4).map(lambda row: {"id": row["id"] * 2}).take_all()
    return sorted(row["id"] for row in rows)


def broken() -> list[dict[str, Any]]:
    import ray

    def fail(row: dict[str, Any]) -> dict[str, Any]:
        raise ValueError("row without a label")

    found: list[dict[str, Any]] = ray.data.range(4).map(fail).take_all()
    return found


async def test_a_pipeline_has_its_phases_and_its_operators_are_steps() -> None:
    watch, metrics = Watch(), Metrics()
    config = DatasetConfig(callbacks=[watch, MetricsObserver(metrics)], name="double")
    assert await run_dataset(config, doubled) == list(range(0, 200, 2))
    moments = [event.phase for event in watch.events if isinstance(event, PhaseEvent)]
    assert moments == ["pre_dataset", "pre_execution", "post_execution", "post_dataset"]
    ends = {event.kind: event for event in watch.events if isinstance(event, StepFinished)}
    assert set(ends) == {"dataset", "dataset_execution", "dataset_operator"}
    assert ends["dataset_operator"].parent == ends["dataset_execution"].step
    assert ends["dataset_execution"].parent == ends["dataset"].step
    rows = [
        event.attributes["rows"]
        for event in watch.events
        if event.__class__ is StepFinished and event.kind == "dataset_operator"
    ]
    assert 100 in rows
    value = metrics.registry.get_sample_value
    assert value("phasebus_dataset_duration_seconds_count", {"dataset": "double"}) == 1
    assert (value("phasebus_dataset_operator_rows_total", {"outcome": "finished"}) or 0) >= 100


async def test_callbacks_change_the_block_size_and_the_limits_before_anything_is_executed() -> None:
    from ray.data import DataContext

    seen: list[tuple[Any, Any, Any]] = []

    def tune(event: PreDataset, context: Context) -> None:
        context[MAX_BLOCK_BYTES] = 12345
        context[RESOURCE_LIMITS] = {"cpu": 1}

    def pipeline() -> int:
        import ray

        dataset = ray.data.range(10)
        settings = dataset.context
        seen.append((settings.target_max_block_size, settings.execution_options.resource_limits.cpu, None))
        return int(dataset.map(lambda row: row).materialize().count())

    assert await run_dataset(DatasetConfig(callbacks=[tune]), pipeline) == 10
    assert seen == [(12345, 1, None)]
    assert DataContext.get_current().target_max_block_size != 12345


async def test_an_error_of_a_callback_fails_the_run_with_the_callbacks_name_on_it() -> None:
    def refuse(event: PreExecution, context: Context) -> None:
        raise PermissionError(f"no execution of {len(context[OPERATORS])} operators today")

    watch = Watch()
    with pytest.raises(PermissionError, match="operators today") as caught:
        await run_dataset(DatasetConfig(callbacks=[refuse, watch]), doubled)
    assert "raised by the callback 'refuse' during phase 'pre_execution'" in caught.value.__notes__
    failed = [event.kind for event in watch.events if isinstance(event, StepFailed)]
    assert failed[-2:] == ["dataset_execution", "dataset"]


async def test_an_error_of_an_observer_never_fails_a_run() -> None:
    class Broken:
        def observe(self, event: StepEvent) -> None:
            raise RuntimeError("the disk is full")

    assert len(await run_dataset(DatasetConfig(callbacks=[Broken()]), doubled)) == 100


async def test_a_failure_of_the_pipeline_is_published_and_raised_unchanged() -> None:
    watch = Watch()
    with pytest.raises(Exception, match="row without a label"):
        await run_dataset(DatasetConfig(callbacks=[watch]), broken)
    failed = {event.kind for event in watch.events if isinstance(event, StepFailed)}
    assert failed == {"dataset_operator", "dataset_execution", "dataset"}


async def test_cancelling_ends_the_execution() -> None:
    def endless() -> None:
        import ray

        def wait(row: dict[str, Any]) -> dict[str, Any]:
            time.sleep(0.1)
            return row

        ray.data.range(10_000, override_num_blocks=10_000).map(wait).materialize()

    begun = anyio.Event()

    async def note(event: StepProgress) -> None:
        begun.set()

    watch = Watch()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_dataset, DatasetConfig(callbacks=[note, watch]), endless)
        await begun.wait()
        tasks.cancel_scope.cancel()
    ended = {event.kind: event.outcome for event in watch.events if isinstance(event, StepFailed)}
    assert ended == {"dataset_operator": "cancelled", "dataset_execution": "cancelled", "dataset": "cancelled"}


async def test_a_callback_may_replace_the_result() -> None:
    def count(event: PostDataset, context: Context) -> dict[str, int]:
        return {RESULT: len(context[RESULT])}

    result: Any = await run_dataset(DatasetConfig(callbacks=[count]), doubled)
    assert result == 100


async def test_a_dataset_that_outlives_the_pipeline_executes_without_phases(caplog: pytest.LogCaptureFixture) -> None:
    import ray

    watch = Watch()
    async with Bus() as bus:
        bus.observe(None, watch)
        dataset = await run_dataset(
            DatasetConfig(), lambda: ray.data.range(20).map(lambda row: {"id": row["id"] * 2}), bus=bus
        )
        for read in (dataset.take_all, lambda: list(dataset.iter_rows())):
            rows = await anyio.to_thread.run_sync(read)
            assert sorted(row["id"] for row in rows) == list(range(0, 40, 2))
        assert len(dataset.take_all()) == 20  # in the bus's own thread
    assert [event.phase for event in watch.events if isinstance(event, PhaseEvent)] == ["pre_dataset", "post_dataset"]
    assert "no execution of Ray Data was seen" not in caplog.text


async def test_an_execution_that_outlasts_the_pipeline_ends_its_phases_and_continues() -> None:
    import ray

    watch = Watch()

    def begin() -> tuple[Any, Any]:
        batches = iter(ray.data.range(1000, override_num_blocks=10).iter_batches(batch_size=10))
        return next(batches), batches

    async with Bus() as bus:
        bus.observe(None, watch)
        _, batches = await run_dataset(DatasetConfig(), begin, bus=bus)
        assert sum(len(batch["id"]) for batch in await anyio.to_thread.run_sync(list, batches)) == 990
    starts = [event.step for event in watch.events if isinstance(event, StepStarted)]
    ends = [event.step for event in watch.events if isinstance(event, StepFinished | StepFailed)]
    assert sorted(ends) == sorted(starts)
    [left] = [event for event in watch.events if isinstance(event, StepFailed) and event.kind == "dataset_execution"]
    assert (left.outcome, type(left.error).__name__) == ("cancelled", "ExecutionLeftError")


def refuse(phase: str, config: Any, data: Any) -> None:
    if phase == "pre_execution":
        raise LookupError("no label") from KeyError("label")


def leave(phase: str, config: Any, data: Any) -> None:
    if phase == "pre_execution":
        sys.exit(3)


@pytest.mark.parametrize(("callback", "error"), [(refuse, LookupError), (leave, CallbackError)])
async def test_a_callback_error_that_the_pipeline_catches_fails_the_run(callback: Any, error: type[Exception]) -> None:
    def insisting() -> list[int]:
        try:
            return doubled()
        except Exception:  # noqa: BLE001  # the mistake that some make
            return []

    watch = Watch()
    with pytest.raises(error) as raised:
        await run_dataset(DatasetConfig(callbacks=[callback, watch]), insisting)
    assert f"raised by the callback '{callback.__name__}' during phase 'pre_execution'" in raised.value.__notes__
    assert isinstance(raised.value.__cause__, KeyError | SystemExit)
    failed = {event.kind for event in watch.events if isinstance(event, StepFailed)}
    assert failed == {"callback", "dataset_execution", "dataset"}


async def test_a_pipeline_beside_another_is_refused_and_the_settings_are_as_they_were() -> None:
    from ray.data import DataContext

    before = DataContext.get_current()
    refused = []

    def another() -> list[int]:
        with pytest.raises(DatasetError, match="'second' cannot run beside another") as raised:
            anyio.run(run_dataset, DatasetConfig(name="second"), doubled)
        refused.append(raised.value)
        return doubled()

    assert len(await run_dataset(DatasetConfig(max_block_bytes=1000), another)) == 100
    assert refused
    assert DataContext.get_current() is before
    assert len(await run_dataset(DatasetConfig(), doubled)) == 100


async def test_a_dataset_built_outside_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    import ray

    dataset = ray.data.range(10)
    assert len(await run_dataset(DatasetConfig(name="early"), dataset.take_all)) == 10
    assert "the pipeline 'early' has returned, and no execution of Ray Data was seen in it" in caplog.text


@pytest.mark.parametrize("phase", ["pre_dataset", "pre_execution", "post_execution", "post_dataset"])
async def test_a_misspelled_key_is_an_error_with_the_callbacks_name(phase: str) -> None:
    def limit(now: str, config: Any, data: Any) -> Any:
        return {"resource_limit": {"cpu": 1}} if now == phase else None

    with pytest.raises(CallbackError, match=r"'limit' wrote 'resource_limit', .* did you mean 'resource_limits'"):
        await run_dataset(DatasetConfig(callbacks=[limit]), doubled)


async def test_a_callback_error_after_an_execution_fails_the_run_with_its_name() -> None:
    def check(event: PostExecution) -> None:
        raise LookupError("too few rows")

    with pytest.raises(LookupError, match="too few rows") as raised:
        await run_dataset(DatasetConfig(callbacks=[check]), doubled)
    assert raised.value.__notes__ == ["raised by the callback 'check' during phase 'post_execution'"]


async def test_a_bus_that_is_used_again_has_none_of_the_callbacks_of_the_run_before() -> None:
    calls = []

    def count(event: PreExecution) -> None:
        calls.append(event)

    async with Bus() as bus:
        for _ in range(2):
            await run_dataset(DatasetConfig(callbacks=[count]), doubled, bus=bus)
        assert len(calls) == 2
