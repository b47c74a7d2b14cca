from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import threading
from typing import Any
from unittest.mock import create_autospec

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from phasebus.bus import Bus, BusStateError, Context, ReadOnlyContext, SubscriberStats
from tests.support.waiting import wait_until

pytestmark = pytest.mark.anyio


class Ping:
    def __init__(self, number: int = 0) -> None:
        self.number = number


def stats_of(bus: Bus, name: str) -> SubscriberStats:
    return next(stats for stats in bus.stats() if stats.name == name)


class Recorder:
    """An observer in the shape of an object."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.threads: set[int] = set()
        self.closed = 0

    def observe(self, event: Ping) -> None:
        self.seen.append(event.number)
        self.threads.add(threading.get_ident())

    def close(self) -> None:
        self.closed += 1


class AsyncRecorder(Recorder):
    async def observe(self, event: Ping) -> None:  # type: ignore[override]
        await anyio.lowlevel.checkpoint()
        super().observe(event)

    async def close(self) -> None:  # type: ignore[override]
        await anyio.lowlevel.checkpoint()
        super().close()


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


async def _raise(event: Ping) -> None:
    raise ValueError("no")


def _raise_in_thread(event: Ping) -> None:
    raise ValueError("no")


def _exit_in_thread(event: Ping) -> None:
    raise SystemExit


async def _exit(event: Ping) -> None:
    raise SystemExit


async def _exit_later(event: Ping) -> None:
    await anyio.lowlevel.checkpoint()
    raise SystemExit


@pytest.mark.parametrize("observer", [_raise, _raise_in_thread, _exit_in_thread, _exit, _exit_later])
async def test_observer_that_raises_is_switched_off_and_logged_once(
    observer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    other = Recorder()
    async with Bus() as bus:
        bus.observe(Ping, observer, name="broken")
        bus.observe(None, other)
        bus.subscribe(Ping, lambda event: "ran")
        for number in range(3):
            assert [r.value for r in await bus.publish(Ping(number))] == ["ran"]
    assert other.seen == [0, 1, 2]
    said = [record for record in caplog.records if record.name == "phasebus.bus"]
    assert [record.message for record in said] == [
        "observer 'broken' failed and is switched off; the publisher goes on without it"
    ]
    assert (stats_of(bus, "broken").calls, stats_of(bus, "broken").errors) == (1, 1)


class Failed(BaseException):
    """As pytest's `fail` raises one."""


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("error", [Failed(), BaseExceptionGroup("of a task group", [SystemExit(1), ValueError()])])
async def test_observer_that_raises_no_exception_but_a_base_exception_is_switched_off(
    error: BaseException, *, asynchronous: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def observer(event: Ping) -> None:
        raise error

    async def asynchronous_observer(event: Ping) -> None:
        raise error

    async with Bus() as bus:
        bus.observe(Ping, asynchronous_observer if asynchronous else observer, name="it")
        await bus.publish(Ping())
        await bus.publish(Ping())
    assert (stats_of(bus, "it").calls, stats_of(bus, "it").errors) == (1, 1)
    assert [record.message for record in caplog.records if "switched off" in record.message]


async def test_late_observer_that_fails_in_a_task_group_when_cancelled_ends(caplog: pytest.LogCaptureFixture) -> None:
    async def child() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise ValueError("while it is cancelled")

    started = anyio.Event()

    async def observer(event: Ping) -> None:
        async with anyio.create_task_group() as tasks:
            for function in (child, anyio.sleep_forever):
                tasks.start_soon(function)
            await anyio.lowlevel.checkpoint()
            started.set()

    async with Bus(drain_seconds=0.0) as bus:
        observation = bus.observe(Ping, observer, name="it")
        await bus.publish(Ping())
        await started.wait()
    assert observation.done.is_set()
    assert stats_of(bus, "it").errors == 1


def test_observer_that_fails_when_its_loop_ends_does_not_keep_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        bus = await Bus().__aenter__()  # and nothing closes it
        started = asyncio.Event()

        async def observer(event: Ping) -> None:
            started.set()
            try:
                await asyncio.sleep(60)
            finally:
                raise ValueError("while it is cancelled")

        bus.observe(Ping, observer, name="it")
        await bus.publish(Ping())
        await started.wait()

    thread = threading.Thread(target=asyncio.run, args=(main(),), daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()


def test_publish_goes_on_after_the_loop_of_an_observer_was_closed() -> None:
    recorder = AsyncRecorder()
    bus = Bus()
    bus.observe(None, recorder, name="it")
    bus.subscribe(Ping, lambda event: "ran", name="subscriber")

    async def observe() -> None:
        await bus.__aenter__()  # and nothing closes it
        await bus.publish(Ping())
        while not recorder.seen:
            await anyio.lowlevel.checkpoint()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(observe())
    loop.close()
    assert asyncio.run(bus.publish(Ping()))["subscriber"].value == "ran"


async def test_observer_that_fails_to_close_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Recorder):
        def close(self) -> None:
            raise OSError

    class AsyncBroken(AsyncRecorder):
        async def close(self) -> None:  # type: ignore[override]
            raise OSError

    async with Bus() as bus:
        bus.observe(None, Broken())
        bus.observe(None, AsyncBroken())
        await bus.publish(Ping())
    assert len(caplog.records) == 2


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_hanging_observer_delays_neither_publisher_nor_exit(
    asynchronous: bool, caplog: pytest.LogCaptureFixture
) -> None:
    hang = threading.Event()

    async def sleeps(event: Ping) -> None:
        await anyio.sleep_forever()

    def blocks(event: Ping) -> None:
        hang.wait(30)

    start = anyio.current_time()
    async with Bus(drain_seconds=0.05) as bus:
        bus.observe(Ping, sleeps if asynchronous else blocks, name="hung", buffer=10)
        for number in range(100):
            await bus.publish(Ping(number))
    assert anyio.current_time() - start < 25
    hang.set()
    assert "observer 'hung' was not done within 0.05 s" in caplog.text
    assert stats_of(bus, "hung").drops >= 89


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_an_observer_that_is_flooded_loses_the_oldest_and_counts_them(asynchronous: bool) -> None:
    release, entered = threading.Event(), threading.Event()
    seen: list[int] = []

    async def slow(event: Ping) -> None:
        entered.set()
        await anyio.to_thread.run_sync(release.wait, 60)
        seen.append(event.number)

    def slow_in_thread(event: Ping) -> None:
        entered.set()
        release.wait(60)
        seen.append(event.number)

    async with Bus() as bus:
        bus.observe(Ping, slow if asynchronous else slow_in_thread, name="slow", buffer=3)
        await bus.publish(Ping(0))
        await anyio.to_thread.run_sync(entered.wait, 60)
        for number in range(1, 11):
            await bus.publish(Ping(number))
        release.set()
    assert seen == [0, 8, 9, 10]
    assert stats_of(bus, "slow").drops == 7


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_with_overflow_block_the_publisher_waits_and_nothing_is_lost(asynchronous: bool) -> None:
    release = threading.Event()
    seen: list[int] = []

    async def slow(event: Ping) -> None:
        await anyio.to_thread.run_sync(release.wait, 60)
        seen.append(event.number)

    def slow_in_thread(event: Ping) -> None:
        release.wait(60)
        seen.append(event.number)

    published: list[int] = []
    async with Bus() as bus, anyio.create_task_group() as tasks:
        bus.observe(Ping, slow if asynchronous else slow_in_thread, name="slow", buffer=2, overflow="block")

        async def publish() -> None:
            for number in range(10):
                await bus.publish(Ping(number))
                published.append(number)

        tasks.start_soon(publish)
        await anyio.wait_all_tasks_blocked()
        assert len(published) <= 3
        release.set()
    assert seen == published == list(range(10))
    assert stats_of(bus, "slow").drops == 0


@pytest.mark.parametrize("asynchronous", [True, False])
@pytest.mark.parametrize("way", ["unsubscribe", "close"])
async def test_waiting_publisher_continues_when_the_observer_ends(asynchronous: bool, way: str) -> None:
    release = threading.Event()

    async def sleeps(event: Ping) -> None:
        await anyio.sleep_forever()

    def blocks(event: Ping) -> None:
        release.wait(30)

    done = anyio.Event()
    async with anyio.create_task_group() as tasks:
        async with Bus(drain_seconds=0.01) as bus:
            watching = bus.observe(Ping, sleeps if asynchronous else blocks, buffer=1, overflow="block")

            async def publish() -> None:
                with contextlib.suppress(BusStateError):  # as the bus is closed when it goes on
                    for _ in range(3):
                        await bus.publish(Ping())
                done.set()

            tasks.start_soon(publish)
            await anyio.wait_all_tasks_blocked()
            if way == "unsubscribe":
                watching.unsubscribe()
                watching.unsubscribe()
                await done.wait()
        await done.wait()
        release.set()


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


def test_observer_that_raises_cancelled_error_by_itself_is_switched_off(caplog: pytest.LogCaptureFixture) -> None:
    async def cancels_itself(event: Ping) -> None:
        raise asyncio.CancelledError

    async def main() -> None:
        async with Bus() as bus:
            bus.observe(Ping, cancels_itself, name="broken")
            await bus.publish(Ping())
            await bus.publish(Ping())
        assert (stats_of(bus, "broken").calls, stats_of(bus, "broken").errors) == (1, 1)

    asyncio.run(main())
    assert "observer 'broken' failed and is switched off" in caplog.text


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_observer_that_waits_for_its_own_full_buffer_raises(
    asynchronous: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with Bus() as bus:
        threads = bus.threads()

        async def multiplies(event: Ping) -> None:
            for _ in range(3):
                await bus.publish(Ping())

        def multiplies_in_thread(event: Ping) -> None:
            for _ in range(3):
                threads.publish(Ping())

        look: Any = multiplies if asynchronous else multiplies_in_thread
        bus.observe(Ping, look, name="own", buffer=1, overflow="block")
        await bus.publish(Ping())
        await anyio.to_thread.run_sync(wait_until, lambda: stats_of(bus, "own").errors, "it is switched off", 30)
    assert "the observer 'own' waits for its own buffer, which is full" in caplog.text


@pytest.mark.parametrize("kind", [Recorder, AsyncRecorder])
async def test_loop_of_publishes_lets_observers_keep_up(kind: type[Recorder]) -> None:
    recorder = kind()
    async with Bus() as bus:
        bus.observe(None, recorder, name="it", buffer=100, overflow="block" if kind is Recorder else "drop_oldest")
        for number in range(1000):
            await bus.publish(Ping(number))
        assert stats_of(bus, "it").drops == 0
    assert recorder.seen == list(range(1000))


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


async def test_asynchronous_observer_may_handle_its_own_timeout() -> None:
    seen: list[str] = []

    async def look(event: Ping) -> None:
        with anyio.move_on_after(0.001) as scope:
            await anyio.sleep_forever()
        seen.append(f"timed out: {scope.cancelled_caught}")

    async with Bus() as bus:
        bus.observe(Ping, look)
        await bus.publish(Ping())
        await bus.publish(Ping())
    assert seen == ["timed out: True"] * 2


async def test_publisher_turns_the_loop_once_for_each_half_of_a_buffer_that_is_not_emptied() -> None:
    turns = 0

    async def stalled(event: int) -> None:
        await anyio.sleep_forever()

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks, Bus(drain_seconds=0) as bus:
        bus.observe(int, stalled, buffer=10)
        await bus.publish(0)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(count_turns)
        for number in range(200):
            await bus.publish(number)
        tasks.cancel_scope.cancel()
    assert 30 < turns < 60
