from __future__ import annotations

import threading
from typing import Any

import anyio
import pytest

from phasebus.bus import Bus, Context
from phasebus.bus import _order as order_module
from phasebus.bus import _registry as registry_module
from phasebus.bus._stats import SAMPLES, quantile

pytestmark = pytest.mark.anyio


class Ping:
    pass


class Pong:
    pass


@pytest.mark.parametrize("timing", [False, True])
async def test_stats_count_calls_and_errors_and_the_last_durations(timing: bool) -> None:
    bus = Bus(timing=timing)

    async def plain(event: Any) -> None: ...

    def broken(event: Any, context: Context) -> None:
        raise ValueError

    bus.subscribe(Ping | Pong, plain)
    bus.subscribe(Ping, broken, on_error="isolate")
    for _ in range(3):
        await bus.publish(Ping())
    await bus.publish(Pong())
    for _ in range(2):  # reading changes nothing
        first, second = bus.stats()
        assert (first.name, first.role, first.calls, first.errors) == ("plain", "subscriber", 4, 0)
        assert (second.name, second.calls, second.errors, second.timeouts, second.drops) == ("broken", 3, 3, 0, 0)
        assert (first.p50 is not None) is timing
    bus.subscribe(Ping, lambda event: None, name="new")
    assert [s.calls for s in bus.stats()] == [4, 3, 0], "a change of plans loses no counts"
    if timing:
        assert first.p50 is not None
        assert first.p99 is not None
        assert 0 <= first.p50 <= first.p99


@pytest.mark.parametrize("subscribers", [1, 2])
async def test_the_durations_that_are_kept_are_limited(subscribers: int) -> None:
    bus = Bus(timing=True)

    def plain() -> Any:
        async def callback(event: Any) -> None: ...

        return callback

    for _ in range(subscribers):
        bus.subscribe(Ping, plain())
    for _ in range(SAMPLES + 100):
        await bus.publish(Ping())
    assert len(bus._plans[Ping].times or ()) <= SAMPLES
    bus.subscribe(Ping, plain())
    assert [len(each.tally.seconds) for each in bus.subscriptions()] == [SAMPLES] * subscribers + [0]


@pytest.mark.parametrize("takes_context", [False, True])
@pytest.mark.parametrize("subscribers", [1, 2])
async def test_outcome_of_a_bus_with_timing_has_the_seconds_of_each_call(subscribers: int, takes_context: bool) -> None:
    bus = Bus(timing=True)

    def checkpoints() -> Any:
        async def with_event(event: Any) -> None:
            await anyio.lowlevel.checkpoint()

        async def with_context(event: Any, context: Context) -> None:
            await anyio.lowlevel.checkpoint()

        return with_context if takes_context else with_event

    for _ in range(subscribers):
        bus.subscribe(Ping, checkpoints())
    outcome = await bus.publish(Ping())
    seconds = [result.seconds for result in outcome]
    assert len(seconds) == subscribers
    assert all(each is not None and each > 0 for each in seconds)
    assert [stats.p50 for stats in bus.stats()] == seconds


async def test_stats_may_be_read_in_another_thread_while_events_are_published() -> None:
    bus = Bus(timing=True)
    bus.subscribe(Ping, lambda event: None, name="it")
    stop = threading.Event()
    read: list[int] = []
    errors: list[Exception] = []

    def scrape() -> None:
        while not stop.is_set():
            try:
                read.append(bus.stats()[0].calls)
            except Exception as error:  # noqa: BLE001
                errors.append(error)

    thread = threading.Thread(target=scrape)
    thread.start()
    for number in range(300):
        await bus.publish(Ping())
        if number % 10 == 0:
            with bus.subscribe(Pong, lambda event: None):
                await bus.publish(Pong())
    stop.set()
    thread.join()
    assert errors == []
    assert read == sorted(read), "a counter never goes back"
    assert bus.stats()[0].calls == 300


def test_quantiles_are_nearest_ranks() -> None:
    assert quantile([], 0.5) is None
    assert quantile([3.0], 0.99) == 3.0
    values = [float(n) for n in range(1, 101)]
    assert (quantile(values, 0.5), quantile(values, 0.99)) == (50.0, 99.0)


@pytest.mark.parametrize(("count", "share", "rank"), [(3, 0.5, 2), (5, 0.5, 3), (7, 0.99, 7), (101, 0.99, 100)])
def test_quantile_between_two_ranks_is_the_higher(count: int, share: float, rank: int) -> None:
    assert quantile([float(n) for n in range(count, 0, -1)], share) == rank


async def test_wants_is_true_if_a_subscriber_or_observer_selects_the_class() -> None:
    async with Bus() as bus:
        assert not bus.wants(Ping)
        with bus.subscribe(Ping, lambda event: None):
            assert bus.wants(Ping)
            assert not bus.wants(Pong)
        assert not bus.wants(Ping)
        with bus.observe(Any, lambda event: None):
            assert bus.wants(Ping)
        async with bus.stream(Pong):
            assert bus.wants(Pong)
            assert not bus.wants(Ping)
        await bus.publish(Ping())
        assert not bus.wants(Ping)
        await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("takes_context", [False, True])
@pytest.mark.parametrize("timing", [False, True])
async def test_calls_are_counted_exactly_when_subscribers_change_during_a_publish(
    takes_context: bool, timing: bool
) -> None:
    async with Bus(timing=timing) as bus:
        go = anyio.Event()

        async def waits(event: Ping) -> None:
            await go.wait()

        async def waits_with_context(event: Ping, context: Context) -> None:
            await go.wait()

        bus.subscribe(Ping, waits_with_context if takes_context else waits, name="it")
        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(bus.publish, Ping())
                await anyio.wait_all_tasks_blocked()
                if number % 2:
                    bus.subscribe(Pong, lambda event: None)
                else:
                    async with bus.stream(Pong):
                        pass
            go.set()
        assert bus.stats()[0].calls == 10
        assert (bus.stats()[0].p50 is not None) is timing


def test_registering_many_subscribers_takes_time_in_proportion() -> None:
    bus = Bus()
    ordered_before = order_module.ordered
    calls: list[int] = []

    def counting(registered: Any) -> Any:
        calls.append(1)
        return ordered_before(registered)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry_module, "ordered", counting)
        for number in range(2_000):
            bus.subscribe(Ping, lambda event: None, after=f"lambda-{number}" if number > 1 else ())
    assert calls == [], "only one that asks for both before and after is checked against all others"
    assert bus.subscriptions()[-1].name == "lambda-2000"
