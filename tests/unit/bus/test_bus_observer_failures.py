"""Observers that raise, hang, or lose their event loop: the publisher goes on."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from phasebus.bus import Bus
from phasebus.bus._buffers import TaskBuffer
from tests.support.bus_recorders import AsyncRecorder, Ping, Recorder, stats_of

pytestmark = pytest.mark.anyio


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
    with anyio.fail_after(60):
        await observation.done.wait()
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


def test_item_is_put_though_the_loop_of_the_task_that_waits_was_closed() -> None:
    buffer = TaskBuffer("it", 10)
    waiting: list[Any] = []

    async def wait() -> None:
        waiting.append(take := buffer.take())
        take.send(None).add_done_callback(waiting.append)  # as the task does that awaits it

    asyncio.run(wait())
    buffer.put((Ping(), None, contextvars.copy_context()))
    assert len(buffer) == 1
    waiting[0].close()


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


async def test_logging_that_fails_ends_neither_publisher_nor_observer(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            raise OSError("the log is full")

    monkeypatch.setattr(logging.getLogger("phasebus.bus"), "filters", [Broken()])
    recorder = Recorder()

    def raises(event: Ping) -> None:
        raise ValueError

    async with Bus() as bus:
        bus.subscribe(Ping, raises, on_error="isolate")
        bus.observe(Ping, raises, buffer=1, overflow="block")
        bus.observe(None, recorder)
        async with bus.stream(Ping, buffer=1) as stream:
            for number in range(3):
                await bus.publish(Ping(number))
            assert stream.dropped == 2
    assert recorder.seen == [0, 1, 2]
