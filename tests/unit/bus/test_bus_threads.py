"""Publishing from other threads than the bus's own."""

from __future__ import annotations

import contextvars
import sys
import threading
from typing import Any

import anyio
import anyio.to_thread
import pytest

from phasebus.bus import Bus, BusStateError, Context, Outcome, WrongThreadError

pytestmark = pytest.mark.anyio

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


class Ping:
    pass


class Pong:
    pass


async def test_another_thread_publishes_through_threads_and_gets_the_outcome() -> None:
    seen: list[Any] = []
    async with Bus() as bus:
        threads = bus.threads()

        @bus.subscribe(Ping)
        async def subscriber(event: Ping, context: Context) -> str:
            seen.append((threading.get_ident(), variable.get()))
            context["a"] = 1
            return "ran"

        def work() -> tuple[Outcome, Context]:
            variable.set("from the thread")
            context = Context()
            return threads.publish(Ping(), context), context

        outcome, context = await anyio.to_thread.run_sync(work)
    assert outcome["subscriber"].value == "ran"
    assert dict(context) == {"a": 1}
    assert seen == [(threading.get_ident(), "from the thread")]


async def test_errors_reach_the_thread_that_published() -> None:
    async with Bus() as bus:

        @bus.subscribe(Ping)
        def broken(event: Ping) -> None:
            raise ValueError("no")

        def work() -> None:
            with pytest.raises(ValueError, match="no"):
                threads.publish(Ping())

        threads = bus.threads()
        await anyio.to_thread.run_sync(work)


async def test_sys_exit_reaches_the_thread_that_published_and_does_not_end_the_loop() -> None:
    async def leave(event: object) -> None:
        sys.exit(3)

    async with Bus() as bus:
        bus.subscribe(leave)
        threads = bus.threads()

        def publish() -> object:
            with pytest.raises(SystemExit) as raised:
                threads.publish(object())
            return raised.value.code

        assert await anyio.to_thread.run_sync(publish) == 3


async def test_publish_in_another_thread_than_the_open_bus_raises() -> None:
    calls: list[int] = []

    async def subscriber(event: Ping) -> None:
        calls.append(threading.get_ident())

    bus = Bus()
    bus.subscribe(Ping, subscriber)

    def work(backend: str) -> None:
        with pytest.raises(WrongThreadError, match=r"publish through bus.threads\(\)"):
            anyio.run(bus.publish, Ping(), backend=backend)
        with pytest.raises(WrongThreadError):
            bus.subscribe(Ping, subscriber)

    async with bus:
        for backend in ("asyncio", "trio"):
            await anyio.to_thread.run_sync(work, backend)
    assert calls == []


async def test_unopened_bus_serves_several_threads() -> None:
    calls: list[int] = []
    bus = Bus()
    bus.subscribe(Ping, lambda event: calls.append(threading.get_ident()))

    def work() -> None:
        for _ in range(2):
            anyio.run(bus.publish, Ping())

    await bus.publish(Ping())
    await anyio.to_thread.run_sync(work)
    await bus.publish(Ping())
    assert len(calls) == 4
    assert bus.stats()[0].calls == 4


async def test_threads_in_the_buss_own_thread_is_an_error_and_no_deadlock() -> None:
    async with Bus() as bus:
        with pytest.raises(WrongThreadError, match=r"await bus\.publish"):
            bus.threads().publish(Ping())


async def test_threads_of_a_bus_that_is_not_open_raises() -> None:
    with pytest.raises(BusStateError, match="has to be open"):
        Bus().threads()
    async with Bus() as bus:
        threads = bus.threads()

    def work() -> None:
        with pytest.raises(BusStateError, match="is closed"):
            threads.publish(Ping())

    await anyio.to_thread.run_sync(work)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_threads_of_a_loop_that_has_ended_is_a_clear_error(backend: str) -> None:
    async def main() -> Any:
        async with Bus() as bus:
            return bus.threads()

    made: list[Any] = []
    thread = threading.Thread(target=lambda: made.append(anyio.run(main, backend=backend)))
    thread.start()
    thread.join()
    with pytest.raises(BusStateError, match="is closed"):
        made[0].publish(Ping())


async def test_threads_that_wait_for_subscribers_in_threads_do_not_wait_for_one_another() -> None:
    both_run = threading.Barrier(2)

    async with Bus() as bus:
        threads = bus.threads()

        @bus.subscribe(Ping, thread=True)
        def outer(event: Ping) -> object:
            both_run.wait(30)  # all threads that the limiter allows are now in use
            return threads.publish(Pong())["inner"].value

        @bus.subscribe(Pong, thread=True)
        def inner(event: Pong) -> str:
            return "ran"

        limiter = anyio.to_thread.current_default_thread_limiter()
        limiter.total_tokens, tokens = 2, limiter.total_tokens
        try:
            with anyio.fail_after(30):
                async with anyio.create_task_group() as tasks:
                    for _ in range(2):
                        tasks.start_soon(bus.publish, Ping())
        finally:
            limiter.total_tokens = tokens
    assert [each.calls for each in bus.stats()] == [2, 2]


async def test_subscriber_of_another_thread_is_called_though_a_plan_was_being_made() -> None:
    class Asked(type):
        def __subclasscheck__(cls, other: type) -> bool:
            if not threads:
                thread = threading.Thread(target=bus.subscribe, args=(Ping, seen.append))
                thread.start()
                thread.join(0.05)  # it has to wait: the members must not change meanwhile
                threads.append(thread)
            return False

    class Watched(metaclass=Asked):
        pass

    seen: list[Ping] = []
    threads = [threading.current_thread()]  # not while the class is subscribed
    bus = Bus()
    bus.subscribe(Watched, lambda event: None)
    threads.clear()
    await bus.publish(Ping())
    threads[0].join()
    await bus.publish(Ping())
    assert seen, "the plan of the first publish was kept"


def test_subscribers_of_several_threads_get_names_of_their_own() -> None:
    def subscribe() -> None:
        for _ in range(50):
            bus.subscribe(Ping, lambda event: None)

    bus = Bus()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=subscribe) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert len(bus.subscriptions()) == 200
