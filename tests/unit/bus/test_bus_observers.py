"""Observers: what they see, when they end, and what they may do meanwhile."""

from __future__ import annotations

import contextvars
import logging
import threading
from typing import Any
from unittest.mock import create_autospec

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from phasebus.bus import Bus, BusStateError, Context, ReadOnlyContext
from tests.support.bus_recorders import AsyncRecorder, Ping, Recorder, stats_of

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("kind", [Recorder, AsyncRecorder])
async def test_observers_see_every_event_in_order_and_are_closed_once(kind: type[Recorder]) -> None:
    recorder = kind()
    async with Bus() as bus:
        bus.observe(None, recorder, name="it")
        for number in range(5):
            await bus.publish(Ping(number))
    assert recorder.seen == [0, 1, 2, 3, 4]
    assert recorder.closed == 1
    assert (threading.get_ident() in recorder.threads) == (kind is AsyncRecorder)
    assert stats_of(bus, "it").calls == 5


async def test_mock_of_an_observer_is_an_observer_and_another_attribute_close_is_none() -> None:
    class Stock(Recorder):
        close = 3.5  # type: ignore[assignment]

    mock, stock = create_autospec(Recorder, instance=True), Stock()
    async with Bus() as bus:
        for observer in (mock, stock):
            bus.observe(Ping, observer)
        await bus.publish(ping := Ping(7))
    mock.observe.assert_called_once_with(ping)
    mock.close.assert_called_once_with()
    assert stock.seen == [7]
    assert [stats.errors for stats in bus.stats()] == [0, 0]


async def test_close_of_a_bound_methods_object_is_not_called() -> None:
    closed = []

    class File:
        def write(self, event: Any) -> None: ...

        def close(self) -> None:
            closed.append(self)

    async with Bus() as bus:
        bus.observe(Ping, File().write)
        await bus.publish(Ping())
    assert closed == []


async def test_observers_get_a_view_that_cannot_be_changed() -> None:
    seen: list[Any] = []

    def look(event: Ping, context: ReadOnlyContext) -> None:
        seen.append((dict(context), isinstance(context, ReadOnlyContext), hasattr(context, "__setitem__")))

    async with Bus() as bus:
        bus.observe(Ping, look)
        await bus.publish(Ping(), Context({"a": 1}))
    assert seen == [({"a": 1}, True, False)]


async def test_observation_that_ends_processes_what_is_in_its_buffer() -> None:
    recorder = Recorder()
    async with Bus() as bus:
        with bus.observe(None, recorder):
            await bus.publish(Ping(1))
        await bus.publish(Ping(2))
        assert bus.stats() == ()
    assert recorder.seen == [1]
    assert recorder.closed == 1


async def test_observers_may_come_before_the_bus_is_open_but_events_may_not() -> None:
    recorder = Recorder()
    bus = Bus()
    bus.observe(None, recorder)
    assert bus.wants(Ping)
    with pytest.raises(BusStateError, match="has to be opened first"):
        await bus.publish(Ping(1))
    async with bus:
        await bus.publish(Ping(2))
    assert recorder.seen == [2]


async def test_an_observer_may_publish_and_its_events_have_their_parent() -> None:
    parents: list[Any] = []
    async with Bus() as bus:
        bus.subscribe(str, lambda event: None)

        async def echo(event: Ping) -> None:
            parents.append((await bus.publish("echo")).parent)

        bus.observe(Ping, echo)
        ping = Ping()
        await bus.publish(ping)
        await anyio.wait_all_tasks_blocked()
    assert parents == [ping]


async def test_events_published_by_a_draining_observer_reach_subscribers() -> None:
    received: list[str] = []
    async with Bus() as bus:
        bus.subscribe(str, received.append)

        async def echo(event: Ping) -> None:
            await bus.publish("echo")

        bus.observe(Ping, echo)
        await bus.publish(Ping())
    assert received == ["echo"]


async def test_the_error_of_the_body_leaves_the_bus_as_it_came(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder()
    with pytest.raises(KeyError, match="mine"):  # noqa: PT012  # the body is what raises
        async with Bus() as bus:
            bus.observe(None, recorder)
            await bus.publish(Ping(1))
            raise KeyError("mine")
    assert recorder.seen == [1]
    assert caplog.records == []


async def test_a_cancelled_body_still_drains_its_observers() -> None:
    recorder = Recorder()
    with anyio.CancelScope() as scope:
        async with Bus() as bus:
            bus.observe(None, recorder)
            await bus.publish(Ping(1))
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert recorder.seen == [1]


async def test_observers_do_not_see_one_another() -> None:
    slow_started, release = anyio.Event(), anyio.Event()
    both = threading.Event()
    quick: list[int] = []

    def look(event: Ping) -> None:
        quick.append(event.number)
        if len(quick) == 2:
            both.set()

    async def slow(event: Ping) -> None:
        slow_started.set()
        await release.wait()

    async with Bus() as bus:
        bus.observe(Ping, slow)
        bus.observe(Ping, look)
        await bus.publish(Ping(1))
        await slow_started.wait()
        await bus.publish(Ping(2))
        await anyio.to_thread.run_sync(both.wait, 60)
        release.set()
    assert quick == [1, 2]


def test_the_logger_is_one_of_phasebus() -> None:
    assert logging.getLogger("phasebus.bus").parent in (logging.getLogger("phasebus"), logging.getLogger())


async def test_thread_observer_may_unsubscribe_itself() -> None:
    seen: list[int] = []

    def once(event: Ping) -> None:
        seen.append(event.number)
        watching.unsubscribe()

    async with Bus() as bus:
        watching = bus.observe(Ping, once)
        await bus.publish(Ping(1))
        await watching.done.wait()
        await bus.publish(Ping(2))
    assert seen == [1]


async def test_bus_may_be_closed_in_another_task_than_it_was_opened_in() -> None:
    recorder = AsyncRecorder()
    bus = Bus()
    bus.observe(None, recorder)

    async def enter() -> None:
        await bus.__aenter__()

    async def leave() -> None:
        await bus.__aexit__(None, None, None)

    for function in (enter, lambda: bus.publish(Ping(1)), leave):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(function)
    assert (recorder.seen, recorder.closed, bus.closed) == ([1], 1, True)


async def test_async_observer_has_the_context_variables_of_each_publisher() -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)
    seen: list[tuple[int, int, int]] = []

    async def look(event: Ping) -> None:
        before = variable.get()
        with anyio.move_on_after(60):
            await anyio.lowlevel.checkpoint()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep, 0)
        seen.append((event.number, before, variable.get()))

    async with Bus() as bus:
        bus.observe(Ping, look)
        for number in (1, 2, 3):
            variable.set(number)
            await bus.publish(Ping(number))
    assert seen == [(1, 1, 1), (2, 2, 2), (3, 3, 3)]
