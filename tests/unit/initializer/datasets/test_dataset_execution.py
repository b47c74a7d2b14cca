"""Executions of Ray Data side by side, which two CPUs are too few for: the executors are fakes."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from phasebus.bus import Bus, Context, Step, StepEvent, StepFailed, StepFinished, StepStarted
from phasebus.initializer.integrations.datasets import DatasetConfig, PostExecution, PreExecution
from phasebus.initializer.integrations.datasets.events import DATASET, DATASET_KEYS
from phasebus.initializer.integrations.datasets.execution import (
    DatasetRun,
    ExecutionEndedError,
    ExecutionObserver,
    LocalCallbacks,
)
from phasebus.initializer.pipeline.callbacks import Spelling

pytestmark = pytest.mark.anyio


class Operator:
    """What a observer sees of an operator of Ray Data."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.metrics = SimpleNamespace(row_outputs_taken=1)


def executor(name: str) -> Any:
    """Return what a observer sees of an executor with one operator."""
    stats = SimpleNamespace(to_summary=lambda: SimpleNamespace(to_string=lambda include_parent: f"{name} took long"))
    return SimpleNamespace(_topology=[Operator(name)], get_stats=lambda: stats)


def run_on(bus: Bus) -> DatasetRun:
    config = DatasetConfig(name="many")
    step = Step(bus, DATASET, "many", None)
    return DatasetRun(bus.threads(), config, Context(keys=DATASET_KEYS), step.id, Spelling(DATASET_KEYS))


async def test_concurrent_executions_publish_their_own_operators_and_stats() -> None:
    seen: dict[str, list[Any]] = {"operators": [], "stats": [], "ends": []}
    names = [f"Map{number}" for number in range(8)]
    together = Barrier(len(names))

    async def look(event: PreExecution | PostExecution) -> None:
        await anyio.lowlevel.checkpoint()  # others come in between
        key = "operators" if isinstance(event, PreExecution) else "stats"
        seen[key].append(getattr(event, key))

    async def follow(event: StepEvent) -> None:
        if isinstance(event, StepFinished) and event.kind != "callback":
            seen["ends"].append(event.kind)

    async with Bus() as bus:
        bus.subscribe(look)
        bus.subscribe(follow)
        run = run_on(bus)

        def execute(name: str) -> None:
            observer, executing = ExecutionObserver(run), executor(name)
            together.wait(60)
            observer.before_execution_starts(executing)
            observer.after_execution_succeeds(executing)

        with ThreadPoolExecutor(len(names)) as threads:
            futures = [threads.submit(execute, name) for name in names]
            while not all(future.done() for future in futures):  # noqa: ASYNC110  # they wait for this thread
                await anyio.sleep(0.005)
        for future in futures:
            future.result()
    assert sorted(seen["operators"]) == [(name,) for name in names]
    assert sorted(seen["stats"]) == [f"{name} took long" for name in names]
    assert sorted(seen["ends"]) == ["dataset_execution"] * 8 + ["dataset_operator"] * 8
    assert not run.running


async def test_calls_in_the_buss_own_thread_publish_nothing_and_do_not_block() -> None:
    async with Bus() as bus:
        run = run_on(bus)
        observer, executing = ExecutionObserver(run), executor("Map")
        observer.before_execution_starts(executing)
        observer.on_execution_step(executing)
        observer.after_execution_succeeds(executing)
        assert run.executions == 0

        await anyio.to_thread.run_sync(observer.before_execution_starts, executing)
        observer.on_execution_step(executing)
        observer.after_execution_fails(executing, RuntimeError("collected as garbage, which may be anywhere"))
        assert run.running == {observer}
        await anyio.to_thread.run_sync(run.leave)
    assert not run.running


async def test_an_execution_that_begins_once_the_pipeline_has_returned_has_no_phases() -> None:
    events: list[Any] = []
    async with Bus() as bus:
        bus.subscribe(StepEvent, events.append)
        run = run_on(bus)
        run.leave()
        observer = ExecutionObserver(run)
        await anyio.to_thread.run_sync(observer.before_execution_starts, executor("Map"))
        await anyio.to_thread.run_sync(observer.after_execution_succeeds, executor("Map"))
    assert not events


async def test_an_error_of_a_step_callback_fails_the_execution_and_the_run() -> None:
    events: list[Any] = []

    def refuse(event: StepStarted) -> None:
        raise LookupError("no such tenant")

    async with Bus() as bus:
        bus.subscribe(StepFailed, events.append)
        bus.subscribe(refuse)
        run = run_on(bus)
        with pytest.raises(ExecutionEndedError, match="a callback has failed: LookupError: no such tenant"):
            await anyio.to_thread.run_sync(ExecutionObserver(run).before_execution_starts, executor("Map"))
    assert isinstance(run.failure, LookupError)
    assert [(event.kind, event.outcome, event.error) for event in events] == [
        ("dataset_execution", "failed", run.failure)
    ]


async def test_a_watch_is_copied_as_itself_and_stays_in_its_process_and_others_travel() -> None:
    async with Bus() as bus:
        registered = LocalCallbacks([dict, partial(ExecutionObserver, run_on(bus))])
        assert copy.deepcopy(registered) is registered
        assert pickle.loads(pickle.dumps(registered)) == [dict]
