"""Outcomes, nested publishes, context variables."""

from __future__ import annotations

import contextvars
import gc
import types
import weakref
from collections.abc import Generator
from typing import Any

import anyio
import anyio.to_thread
import pytest

from phasebus.bus import Bus, BusStateError, Context, NestingError, Outcome, current_event

pytestmark = pytest.mark.anyio

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


class Ping:
    pass


class Pong:
    pass


@pytest.mark.parametrize("timing", [False, True])
async def test_outcome_has_a_result_for_every_subscriber_in_order(timing: bool) -> None:
    bus = Bus(timing=timing)
    bus.subscribe(Ping, lambda event: 1, name="a")

    @bus.subscribe(Ping)
    async def b(event: Ping, context: Context) -> str:
        await anyio.lowlevel.checkpoint()
        return "two"

    outcome = await bus.publish(Ping())
    assert [(r.name, r.value, r.error) for r in outcome] == [("a", 1, None), ("b", "two", None)]
    assert all((r.seconds is not None and r.seconds >= 0) if timing else r.seconds is None for r in outcome)
    assert len(outcome) == 2


@pytest.mark.parametrize("with_context", [False, True])
@pytest.mark.parametrize("observed", [False, True])
async def test_a_nested_publish_knows_its_parent(with_context: bool, observed: bool) -> None:
    outcomes: list[Outcome] = []
    events: list[Any] = []
    async with Bus() as bus:

        async def plain(event: Ping) -> None:
            events.append(current_event())
            outcomes.append(await bus.publish(Pong()))
            events.append(current_event())

        async def with_view(event: Ping, context: Context) -> None:
            await plain(event)

        bus.subscribe(Ping, with_view if with_context else plain)
        bus.subscribe(Pong, lambda event: events.append(current_event()))
        if observed:
            bus.observe(Any, lambda event: None)
        ping = Ping()
        assert (await bus.publish(ping)).parent is None
        assert current_event() is None
    assert outcomes[0].parent is ping
    assert [type(event) for event in events] == [Ping, Pong, Ping]


@pytest.mark.parametrize("observed", [False, True])
async def test_a_publish_from_a_task_that_a_subscriber_started_is_nested(observed: bool) -> None:
    outcomes: list[Outcome] = []
    async with Bus() as bus:
        bus.subscribe(Pong, lambda event: None)

        @bus.subscribe(Ping)
        async def fan_out(event: Ping) -> None:
            async def one() -> None:
                outcomes.append(await bus.publish(Pong()))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(one)
                tasks.start_soon(one)

        if observed:
            bus.observe(Any, lambda event: None)
        await bus.publish(Pong())
        ping = Ping()
        await bus.publish(ping)
    assert [outcome.parent for outcome in outcomes] == [ping, ping]


async def test_concurrent_publishes_are_not_taken_for_nested_ones() -> None:
    outcomes: list[Outcome] = []
    bus = Bus()
    go = anyio.Event()

    @bus.subscribe(Ping)
    async def waits(event: Ping) -> None:
        await go.wait()

    bus.subscribe(Pong, lambda event: None)
    await bus.publish(Pong())

    async def publish(event: object) -> None:
        outcomes.append(await bus.publish(event))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(publish, Ping())
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(publish, Pong())
        await anyio.wait_all_tasks_blocked()
        go.set()
    assert [outcome.parent for outcome in outcomes] == [None, None]


@pytest.mark.parametrize("published_before", [False, True])
async def test_publish_from_task_started_before_the_event_has_no_parent(published_before: bool) -> None:
    outcomes: list[Outcome] = []
    bus = Bus()
    handling, go = anyio.Event(), anyio.Event()

    @bus.subscribe(Ping)
    async def waits(event: Ping) -> None:
        handling.set()
        await go.wait()

    bus.subscribe(Pong, lambda event: None)

    async def heartbeat() -> None:
        if published_before:
            outcomes.append(await bus.publish(Pong()))
        await handling.wait()
        outcomes.append(await bus.publish(Pong()))
        go.set()

    await bus.publish(Pong())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(heartbeat)
        await anyio.wait_all_tasks_blocked()
        await bus.publish(Ping())
    assert [outcome.parent for outcome in outcomes] == [None] * len(outcomes)


async def test_publish_from_task_started_during_the_event_has_that_parent_also_later() -> None:
    outcomes: list[Outcome] = []
    bus = Bus()
    ended = anyio.Event()
    bus.subscribe(Pong, lambda event: None)
    async with anyio.create_task_group() as tasks:

        async def later() -> None:
            await ended.wait()
            outcomes.append(await bus.publish(Pong()))

        @bus.subscribe(Ping)
        async def start(event: Ping) -> None:
            tasks.start_soon(later)

        ping = Ping()
        await bus.publish(ping)
        ended.set()
    assert outcomes[0].parent is ping


async def test_nested_publish_without_listeners_has_its_parent() -> None:
    outcomes: list[Outcome] = []
    bus = Bus()

    @bus.subscribe(Ping)
    async def publish(event: Ping) -> None:
        outcomes.append(await bus.publish(Pong()))

    ping = Ping()
    await bus.publish(ping)
    assert outcomes[0].parent is ping
    assert len(outcomes[0]) == 0


async def test_event_that_schedules_its_successor_never_nests_and_keeps_no_past() -> None:
    bus = Bus(max_depth=2)
    left: list[weakref.ref[Ping]] = []
    async with anyio.create_task_group() as tasks:

        async def later() -> None:
            for _ in range(3):
                await anyio.lowlevel.checkpoint()
            event = Ping()
            left.append(weakref.ref(event))
            await bus.publish(event)

        @bus.subscribe(Ping)
        async def schedule(event: Ping) -> None:
            if len(left) < 50:
                tasks.start_soon(later)

        await bus.publish(Ping())
    gc.collect()
    assert len(left) == 50
    assert [event() for event in left if event() is not None] == []


@pytest.mark.parametrize("in_tasks", [False, True])
async def test_publishes_that_cause_one_another_without_end_are_an_error_that_names_them(in_tasks: bool) -> None:
    bus = Bus(max_depth=5)
    depth = 0

    async def again(event: object) -> None:
        nonlocal depth
        depth += 1
        following = Pong() if isinstance(event, Ping) else Ping()
        if in_tasks:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(bus.publish, following)
        else:
            await bus.publish(following)

    bus.subscribe(Ping | Pong, again)
    with pytest.raises((NestingError, ExceptionGroup)) as caught:
        await bus.publish(Ping())
    error: BaseException = caught.value
    while isinstance(error, ExceptionGroup):
        (error,) = error.exceptions
    assert isinstance(error, NestingError)
    assert "6 deep, and 5 are allowed: Ping > Pong > Ping > Pong > Ping > Pong > Ping;" in str(error)
    assert depth == 6
    assert current_event() is None


async def test_a_nested_publish_on_another_bus_has_its_parent_too() -> None:
    outer, inner = Bus("outer"), Bus("inner")
    inner.subscribe(Pong, lambda event: "inner")
    outcomes: list[Outcome] = []

    @outer.subscribe(Ping)
    async def forward(event: Ping) -> None:
        outcomes.append(await inner.publish(Pong()))

    ping = Ping()
    await outer.publish(ping)
    assert outcomes[0].parent is ping


async def test_subscribers_and_observers_see_the_publishers_context_variables() -> None:
    seen: dict[str, str] = {}

    def look(name: str) -> Any:
        def callback(event: Ping) -> None:
            seen[name] = variable.get()

        return callback

    async def look_later(event: Ping) -> None:
        await anyio.lowlevel.checkpoint()
        seen["async observer"] = variable.get()

    async def look_at_once(event: Ping) -> None:
        seen["async subscriber"] = variable.get()

    async with Bus() as bus:
        bus.subscribe(Ping, look("subscriber"))
        bus.subscribe(Ping, look_at_once)
        bus.subscribe(Ping, look("thread"), thread=True)
        bus.observe(Ping, look("observer"))
        bus.observe(Ping, look_later)
        token = variable.set("from the publisher")
        await bus.publish(Ping())
        variable.reset(token)
    assert seen == dict.fromkeys(
        ["subscriber", "async subscriber", "thread", "observer", "async observer"], "from the publisher"
    )


async def test_closed_bus_refuses_to_publish_and_observe() -> None:
    async with Bus("mine") as bus:
        bus.subscribe(Ping, lambda event: None)
    with pytest.raises(BusStateError, match="'mine' is closed"):
        await bus.publish(Ping())
    with pytest.raises(BusStateError, match="is closed"):
        bus.observe(Ping, lambda event: None)
    with pytest.raises(BusStateError, match="opened before"):
        await bus.__aenter__()
    assert not bus.wants(Ping)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_bus_that_was_never_opened_serves_one_loop_after_the_other(backend: str) -> None:
    bus = Bus()
    calls: list[object] = []

    async def subscriber(event: Ping) -> None:
        calls.append(event)

    bus.subscribe(Ping, subscriber)

    async def main() -> None:
        await bus.publish(Ping())
        await bus.publish(Ping())

    anyio.run(main, backend=backend)
    anyio.run(main, backend="asyncio")
    anyio.run(main, backend="trio")
    assert len(calls) == 6


def test_a_publish_that_never_waits_needs_no_event_loop() -> None:
    bus = Bus()
    parents: list[Any] = []

    @bus.subscribe(Ping)
    async def subscriber(event: Ping) -> str:
        parents.append((await bus.publish(Pong())).parent)
        return "ran"

    bus.subscribe(Pong, lambda event: None)
    ping = Ping()
    for _ in range(2):
        with pytest.raises(StopIteration) as ended:
            contextvars.copy_context().run(bus.publish(ping).send, None)
        assert ended.value.value["subscriber"].value == "ran"
    assert parents == [ping, ping]


@types.coroutine
def suspend() -> Generator[None, None, str]:
    yield
    return "resumed"


async def one_argument(event: Ping) -> str:
    return await suspend()


async def two_arguments(event: Ping, context: Context) -> str:
    return await suspend()


@pytest.mark.parametrize("callback", [one_argument, two_arguments, lambda event: suspend()])
def test_publish_may_end_in_another_context_than_it_began_in(callback: Any) -> None:
    bus = Bus()
    bus.subscribe(Ping, callback, name="it")
    closed, resumed = bus.publish(Ping()), bus.publish(Ping())
    for each in (closed, resumed):
        contextvars.copy_context().run(each.send, None)
    closed.close()  # as the garbage collector does with a task that its loop left pending
    with pytest.raises(StopIteration) as ended:
        resumed.send(None)
    assert ended.value.value["it"].value == "resumed"
    (stats,) = bus.stats()
    assert (stats.calls, stats.errors) == (2, 0)


async def test_subscriber_removed_during_a_publish_is_still_called_in_it() -> None:
    bus = Bus()
    calls: list[str] = []

    @bus.subscribe(Ping)
    def first(event: Ping) -> None:
        calls.append("first")
        second.unsubscribe()

    second = bus.subscribe(Ping, lambda event: calls.append("second"))

    await bus.publish(Ping())
    await bus.publish(Ping())
    assert calls == ["first", "second", "first"]


async def test_one_callback_may_be_subscribed_twice() -> None:
    bus = Bus()
    calls: list[object] = []

    async def callback(event: Ping) -> int:
        calls.append(event)
        if len(calls) == 4:
            raise ValueError
        return len(calls)

    bus.subscribe(Ping, callback)
    bus.subscribe(Ping, callback)
    assert [result.value for result in await bus.publish(Ping())] == [1, 2]
    with pytest.raises(ValueError) as caught:
        await bus.publish(Ping())
    assert caught.value.__notes__ == ["raised by the callback 'callback-2' during Ping"]


async def test_task_that_published_is_freed_without_garbage_collection() -> None:
    class Held(str):
        __slots__ = ("__weakref__",)

    bus = Bus()
    bus.subscribe(Ping, lambda event: None)
    freed: list[str] = []

    async def publish() -> None:
        held = Held("by the task's context")
        weakref.finalize(held, freed.append, "by its end")
        variable.set(held)
        await bus.publish(Ping())

    gc.disable()  # which would free it too, at a price, and at some time
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(publish)
        await anyio.lowlevel.checkpoint()
        assert freed
    finally:
        gc.enable()
