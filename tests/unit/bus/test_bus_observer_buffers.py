"""Buffers of observers that are full: what is dropped, who waits, and when the event loop turns."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from phasebus.bus import Bus, BusStateError
from tests.support.bus_recorders import AsyncRecorder, Ping, Recorder, stats_of
from tests.support.waiting import wait_until

pytestmark = pytest.mark.anyio


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
