from __future__ import annotations

from typing import Any

import anyio
import pytest

from phasebus.bus import Bus, BusStateError

pytestmark = pytest.mark.anyio


class Other:
    pass


async def test_stream_yields_events_while_it_is_open() -> None:
    async with Bus() as bus:
        await bus.publish(0)
        async with bus.stream(int) as stream:
            for number in (1, 2, 3):
                await bus.publish(number)
                await bus.publish(Other())
            assert [await anext(stream) for _ in range(3)] == [1, 2, 3]
        await bus.publish(4)
        assert bus.stats() == ()


async def test_a_stream_waits_for_events_and_ends_with_the_bus() -> None:
    got: list[Any] = []
    async with anyio.create_task_group() as tasks, Bus() as bus:  # the reader outlives the bus

        async def read() -> None:
            async with bus.stream(int) as stream:
                async for event in stream:
                    got.append(event)  # noqa: PERF401  # one by one is what is tested
            got.append("ended")

        tasks.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        await bus.publish(1)
        await anyio.wait_all_tasks_blocked()
        assert got == [1]
        await bus.publish(2)
    assert got == [1, 2, "ended"]


async def test_replay_yields_earlier_events_first() -> None:
    async with Bus(history=5) as bus:
        for number in range(10):
            await bus.publish(number)
            await bus.publish(str(number))
        async with bus.stream(int, replay=2) as stream:
            await bus.publish(10)
            assert [await anext(stream) for _ in range(3)] == [8, 9, 10]
        async with bus.stream(int | str, replay=True) as stream:
            assert [await anext(stream) for _ in range(5)] == [8, "8", 9, "9", 10]


async def test_replay_gives_no_more_than_the_history_kept_and_drops_nothing_of_it() -> None:
    async with Bus(history=3) as bus:
        for number in range(10):
            await bus.publish(number)
        async with bus.stream(int, replay=True, buffer=1) as stream:
            assert [await anext(stream) for _ in range(3)] == [7, 8, 9]
            assert stream.dropped == 0
        async with bus.stream(int) as stream:
            await bus.publish("no number")
            await bus.publish(10)
            assert await anext(stream) == 10


async def test_history_is_off_by_default() -> None:
    async with Bus() as bus:
        await bus.publish(1)
        assert not bus.wants(int)
        async with bus.stream(int, replay=True) as stream:
            await bus.publish(2)
            assert await anext(stream) == 2


async def test_history_keeps_events_without_listeners() -> None:
    async with Bus(history=2) as bus:
        assert bus.wants(int)
        await bus.publish(1)
        async with bus.stream(int, replay=True) as stream:
            assert await anext(stream) == 1


async def test_a_reader_that_is_too_slow_loses_the_oldest_and_counts_them() -> None:
    async with Bus() as bus, bus.stream(int, buffer=2) as stream:
        for number in range(5):
            await bus.publish(number)
        assert stream.dropped == 3
        assert [await anext(stream), await anext(stream)] == [3, 4]
        (stats,) = bus.stats()
        assert (stats.role, stats.calls, stats.drops) == ("observer", 2, 3)


async def test_waiting_publisher_continues_when_the_reader_leaves() -> None:
    published: list[int] = []
    async with Bus() as bus, anyio.create_task_group() as tasks:
        async with bus.stream(int, buffer=2, overflow="block") as stream:

            async def publish() -> None:
                for number in range(5):
                    await bus.publish(number)
                    published.append(number)

            tasks.start_soon(publish)
            await anyio.wait_all_tasks_blocked()
            assert published == [0, 1]
            assert await anext(stream) == 0
            await anyio.wait_all_tasks_blocked()
            assert published == [0, 1, 2]
        await anyio.wait_all_tasks_blocked()
        assert published == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("turns", [False, True])
async def test_readers_of_one_stream_share_its_events_and_all_end_with_the_bus(turns: bool) -> None:
    got: list[int] = []
    ended: list[int] = []
    async with anyio.create_task_group() as tasks, Bus() as bus, bus.stream(int) as stream:

        async def read(reader: int) -> None:
            async for event in stream:
                got.append(event)  # noqa: PERF401  # one by one is what is tested
            ended.append(reader)

        for reader in range(3):
            tasks.start_soon(read, reader)
        await anyio.wait_all_tasks_blocked()
        for number in range(10):
            await bus.publish(number)
            if turns:
                await anyio.wait_all_tasks_blocked()
    assert sorted(got) == list(range(10))
    assert sorted(ended) == [0, 1, 2]


async def test_cancelled_reader_leaves_the_event_to_another() -> None:
    got: list[int] = []
    async with Bus() as bus, bus.stream(int) as stream, anyio.create_task_group() as tasks:

        async def read(scope: anyio.CancelScope) -> None:
            with scope:
                got.append(await anext(stream))

        scopes = [anyio.CancelScope(), anyio.CancelScope()]
        for scope in scopes:
            tasks.start_soon(read, scope)
        await anyio.wait_all_tasks_blocked()
        await bus.publish(1)
        scopes[0].cancel()
        await anyio.wait_all_tasks_blocked()
        assert got == [1]
        await bus.publish(2)
        await anyio.wait_all_tasks_blocked()
        scopes[1].cancel()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await anext(stream)
        assert scope.cancelled_caught, "a cancelled scope takes no event from the stream"
        assert got in ([1], [1, 2])
        await bus.publish(3)
        assert await anext(stream) == (3 if 2 in got else 2)


async def test_loop_of_publishes_lets_a_reader_keep_up() -> None:
    got: list[int] = []
    async with anyio.create_task_group() as tasks, Bus() as bus, bus.stream(int, buffer=10) as stream:

        async def read() -> None:
            async for event in stream:
                got.append(event)  # noqa: PERF401  # one by one is what is tested

        tasks.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        for number in range(1000):
            await bus.publish(number)
        assert stream.dropped == 0
    assert got == list(range(1000))


async def test_loop_of_publishes_to_a_stream_can_be_cancelled() -> None:
    async with Bus() as bus, bus.stream(int, buffer=10):
        with anyio.CancelScope() as scope:
            scope.cancel()
            for _ in range(1000):
                await bus.publish(1)
        assert scope.cancelled_caught


async def test_a_stream_needs_an_open_bus() -> None:
    bus = Bus()
    with pytest.raises(BusStateError, match="has to be open"):
        async with bus.stream(int):
            pass


async def test_stream_opened_while_a_publisher_lets_observers_run_gets_the_event() -> None:
    received: list[int] = []

    async def observer(event: int) -> None:
        if event == 4 and not streams:
            streams.append(True)
            tasks.start_soon(read)

    async def read() -> None:
        async with bus.stream(int, replay=True) as stream:
            received.extend([event async for event in stream])

    streams: list[bool] = []
    async with anyio.create_task_group() as tasks, Bus(history=100) as bus:
        bus.observe(int, observer, buffer=10)
        for number in range(12):
            await bus.publish(number)
        await anyio.wait_all_tasks_blocked()
    assert received == list(range(12))
