"""The controller's calls, without a controller and without Ray."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from phasebus.bus import (
    Bus,
    Context,
    InvalidValueError,
    PhaseEvent,
    StepEvent,
    StepFailed,
    StepFinished,
    StepStarted,
    subscribe_all,
)
from phasebus.initializer import CallbackError
from phasebus.initializer.integrations.training import (
    CHECKPOINT,
    METRICS,
    STOP,
    CheckpointSaved,
    Reported,
    TrainingConfig,
    WorkersFailed,
)
from phasebus.initializer.integrations.training.events import TRAINING_KEYS
from phasebus.initializer.integrations.training.handler import ControllerHandler
from phasebus.initializer.pipeline.callbacks import Spelling

pytestmark = pytest.mark.anyio
RUN = "00000000000000aa"


class Watch:
    def __init__(self) -> None:
        self.events: list[Any] = []

    async def observe(self, event: StepEvent | PhaseEvent) -> None:
        self.events.append(event)

    def outcomes(self, kind: str) -> list[tuple[str, str]]:
        return [
            (type(event).__name__, str(getattr(event, "error", "")))
            for event in self.events
            if isinstance(event, StepEvent) and event.kind == kind
        ]


@asynccontextmanager
async def controller_handler(*callbacks: Any) -> AsyncIterator[ControllerHandler]:
    config = TrainingConfig(train_loop=lambda: None, callbacks=list(callbacks), name="fine-tune")
    async with Bus() as bus:
        subscribe_all(bus, callbacks)
        yield ControllerHandler(bus, config, Context(keys=TRAINING_KEYS), RUN, Spelling(TRAINING_KEYS))


async def test_each_group_of_workers_is_a_step_and_each_report_is_one_inside_it() -> None:
    watch = Watch()
    async with controller_handler(watch) as handler:
        await handler.handle("pre_worker_group", {"workers": 2})
        await handler.handle("post_worker_group", {})
        assert await handler.handle("reported", {"metrics": {"loss": 1.5}, "checkpoint": None}) == {"loss": 1.5}
        await handler.handle("reported", {"metrics": {"loss": 1.0}, "checkpoint": "/results/1"})
        assert await handler.handle("polled", {"errors": {}}) is False
        await handler.handle("worker_group_ended", {})
        await handler.close(None)
    moments = [event.phase for event in watch.events if isinstance(event, PhaseEvent)]
    assert moments == ["pre_worker_group", "post_worker_group", "reported", "reported", "checkpoint_saved"]
    (group,) = [event for event in watch.events if isinstance(event, StepFinished) and event.kind == "training_workers"]
    assert (group.name, group.parent, group.attributes) == ("fine-tune", RUN, {"workers": 2, "attempt": 1})
    reports = [event for event in watch.events if isinstance(event, StepStarted) and event.kind == "training_report"]
    assert [event.parent for event in reports] == [group.step, group.step]
    assert [event.attributes for event in reports] == [
        {"number": 1, "checkpoint": False},
        {"number": 2, "checkpoint": True},
    ]


async def test_the_controller_receives_the_callbacks_metrics_and_stop() -> None:
    def add(event: Reported, context: Context) -> dict[str, Any]:
        return {"metrics": {**context[METRICS], "team": "blue"}}

    def enough(event: CheckpointSaved, context: Context) -> None:
        context[STOP] = context[CHECKPOINT] == "/results/1"

    async with controller_handler(add, enough) as handler:
        await handler.handle("pre_worker_group", {"workers": 1})
        assert await handler.handle("reported", {"metrics": {"loss": 1.0}, "checkpoint": "/results/0"}) == {
            "loss": 1.0,
            "team": "blue",
        }
        assert not await handler.handle("polled", {"errors": {}})
        await handler.handle("reported", {"metrics": {}, "checkpoint": "/results/1"})
        assert await handler.handle("polled", {"errors": {}})


async def test_metrics_that_are_no_mapping_are_refused_with_the_callbacks_name() -> None:
    def forget(event: Reported, context: Context) -> None:
        context[METRICS] = None  # type: ignore[misc]

    async with controller_handler(forget) as handler:
        with pytest.raises(InvalidValueError, match="metrics") as caught:
            await handler.handle("reported", {"metrics": {}, "checkpoint": None})
    assert caught.value is handler.failure
    assert "'forget'" in str(caught.value) + "".join(caught.value.__notes__)


def remove(event: Reported, context: Context) -> None:
    del context[METRICS]


def keep_a_generator(event: Reported, context: Context) -> None:
    context[METRICS]["losses"] = (loss for loss in (1.0, 0.5))


def misspell(event: Reported) -> dict[str, bool]:
    return {"stpo": True}


def leave(event: Reported) -> None:
    sys.exit(3)


@pytest.mark.parametrize(
    ("callback", "says"),
    [
        (remove, "the callback 'remove' removed 'metrics'"),
        (keep_a_generator, "a callback put a value into 'metrics' that cannot be sent to Ray: cannot pickle"),
        (misspell, "the callback 'misspell' wrote 'stpo', .* did you mean 'stop'"),
        (leave, r"sys.exit\(3\) was called"),
    ],
)
async def test_a_mistake_of_a_callback_fails_the_run(callback: Any, says: str) -> None:
    async with controller_handler(callback) as handler:
        with pytest.raises(CallbackError, match=says) as raised:
            await handler.handle("reported", {"metrics": {}, "checkpoint": None})
    assert raised.value is handler.failure


async def test_failed_workers_end_their_group_and_are_published_once() -> None:
    watch, seen = Watch(), []

    def note(event: WorkersFailed, context: Context) -> None:
        seen.append(context["worker_errors"])

    async with controller_handler(watch, note) as handler:
        for attempt in (1, 2):
            await handler.handle("pre_worker_group", {"workers": 2})
            for _ in range(attempt):
                await handler.handle("polled", {"errors": {1: "ValueError: no data"}})
            await handler.handle("worker_group_ended", {})
    assert seen == [{1: "ValueError: no data"}] * 2
    failed = ("StepFailed", "rank 1: ValueError: no data")
    assert watch.outcomes("training_workers") == [("StepStarted", ""), failed, ("StepStarted", ""), failed]


async def test_workers_that_never_start_are_a_step_that_failed() -> None:
    watch = Watch()
    async with controller_handler(watch) as handler:
        await handler.handle("pre_worker_group", {"workers": 2})
        await handler.handle("pre_worker_group", {"workers": 2})
        await handler.close(TimeoutError("no resources"))
    assert watch.outcomes("training_workers") == [
        ("StepStarted", ""),
        ("StepFailed", "the workers did not start"),
        ("StepStarted", ""),
        ("StepFailed", "no resources"),
    ]


async def test_the_worker_group_of_a_cancelled_run_is_published_as_cancelled() -> None:
    watch = Watch()
    async with controller_handler(watch) as handler:
        await handler.handle("pre_worker_group", {"workers": 2})
        with anyio.CancelScope() as scope:
            scope.cancel()
            try:
                await anyio.lowlevel.checkpoint()
            except BaseException as error:
                await handler.close(error)
                raise
    (failed,) = [event for event in watch.events if isinstance(event, StepFailed)]
    assert failed.outcome == "cancelled"


async def test_reports_are_kept_in_no_history() -> None:
    async with controller_handler() as handler:
        for number in range(3):
            await handler.handle("reported", {"metrics": {"epoch": number}, "checkpoint": None})
        assert handler._context.history("metrics") == ()
        assert handler._context[METRICS] == {"epoch": 2}
