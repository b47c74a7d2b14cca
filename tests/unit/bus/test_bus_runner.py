"""`CallbackRunner` and the short form: a thin layer on the bus."""

from __future__ import annotations

from collections import UserDict
from typing import Any

import anyio
import pytest

from phasebus.bus import (
    Bus,
    CallbackRunner,
    CallbackSignatureError,
    Context,
    PhaseEvent,
    StepEvent,
    phase_event,
    subscribe_all,
)

pytestmark = pytest.mark.anyio


async def test_callbacks_run_in_order_and_their_results_are_merged() -> None:
    async def cb1(phase: str, config: Any, data: Any) -> dict[str, Any]:
        return {"a": phase}

    def cb2(phase: str, config: Any, data: Any) -> dict[str, Any]:
        return {"b": data["a"] + "!"}

    runner = CallbackRunner([cb1, cb2])
    result = await runner.run("test", config={})
    assert result == {"a": "test", "b": "test!"}


async def test_the_result_of_an_earlier_callback_is_visible_in_data() -> None:
    seen: list[Any] = []

    async def cb1(phase: str, config: Any, data: Any) -> dict[str, Any]:
        return {"key": "value"}

    async def cb2(phase: str, config: Any, data: Any) -> None:
        seen.append(dict(data))

    runner = CallbackRunner([cb1, cb2])
    await runner.run("test", config={})
    assert seen == [{"key": "value"}]


async def test_data_is_changed_in_place_also_when_a_callback_fails() -> None:
    def good(phase: str, config: Any, data: Any) -> None:
        data["good"] = 1

    def broken(phase: str, config: Any, data: Any) -> None:
        data["broken"] = 1
        raise ValueError

    data: dict[str, Any] = {"given": 0}
    with pytest.raises(ValueError):
        await CallbackRunner([good, broken]).run("test", data=data)
    assert data == {"given": 0, "good": 1}


async def test_a_context_may_be_given_and_keeps_the_history() -> None:
    def set_it(phase: str, config: Any, data: Any) -> dict[str, Any]:
        return {"a": config}

    context = Context()
    await CallbackRunner([set_it]).run("test", 5, context)
    (change,) = context.history("a")
    assert (change.by, change.value, change.event) == ("set_it", 5, phase_event("test")(config=5))


async def test_every_feature_of_the_bus_is_there() -> None:
    class Watcher:
        def __init__(self) -> None:
            self.seen: list[str] = []

        def observe(self, event: PhaseEvent) -> None:
            self.seen.append(event.phase)

    watcher = Watcher()
    bus = Bus()
    async with CallbackRunner([watcher, lambda event, context: {"a": 1}], bus=bus) as runner:
        runner.bus.subscribe("test", lambda event, context: {"b": context["a"]}, on_error="isolate")
        assert await runner.run("test") == {"a": 1, "b": 1}
    assert watcher.seen == ["test"]


async def test_callbacks_with_a_typed_event_get_that_event_only() -> None:
    steps: list[Any] = []

    def typed(event: StepEvent) -> None:
        steps.append(event.name)

    def phases(event: Any) -> None:
        steps.append(type(event).__name__)

    async with CallbackRunner([typed, phases]) as runner:
        await runner.run("test")
    assert steps == ["phases", "Test", "phases"]


@pytest.mark.parametrize("callbacks", [5, {"a": 1}, "name"])
def test_callbacks_that_are_no_list_are_refused(callbacks: Any) -> None:
    with pytest.raises(CallbackSignatureError, match="a list of callables"):
        subscribe_all(Bus(), callbacks)


async def test_two_runs_at_once_on_one_dict_lose_no_update() -> None:
    data: dict[str, Any] = {"given": 0}

    async def add(phase: str, config: Any, data: Any) -> None:
        data[phase] = 1
        await anyio.lowlevel.checkpoint()

    runner = CallbackRunner([add])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(runner.run, "first", None, data)
        tasks.start_soon(runner.run, "second", None, data)
    assert data == {"given": 0, "first": 1, "second": 1}


async def test_data_that_is_no_dict_is_changed_in_place() -> None:
    data = UserDict({"given": 0})
    assert await CallbackRunner([lambda phase, config, data: {"a": 1}]).run("test", data=data) == {"given": 0, "a": 1}
    assert data == {"given": 0, "a": 1}
