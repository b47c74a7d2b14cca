"""Error policies, timeouts and threads."""

from __future__ import annotations

import asyncio
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.to_thread
import pytest

from phasebus.bus import (
    Bus,
    CallbackFailed,
    CallbackTimeoutError,
    Context,
    PhasebusError,
    PhaseEvent,
    Retry,
    phase_event,
)

pytestmark = pytest.mark.anyio


class Ping:
    pass


async def sleeps_forever(event: Any) -> None:
    await anyio.sleep_forever()


def raising(error: BaseException) -> Callable[[Any], None]:
    def callback(event: Any) -> None:
        raise error

    return callback


async def test_an_error_ends_the_publish_and_names_the_callback() -> None:
    bus = Bus()
    called: list[object] = []
    bus.subscribe(Ping, raising(ValueError("no")), name="broken")
    bus.subscribe(Ping, called.append)
    with pytest.raises(ValueError, match="no") as caught:
        await bus.publish(Ping())
    assert caught.value.__notes__ == ["raised by the callback 'broken' during Ping"]
    assert called == []


async def test_an_error_during_a_phase_names_the_phase() -> None:
    bus = Bus()
    bus.subscribe(PhaseEvent, raising(ValueError("no")), name="broken")
    with pytest.raises(ValueError, match="no") as caught:
        await bus.publish(phase_event("pre_download")())
    assert caught.value.__notes__ == ["raised by the callback 'broken' during phase 'pre_download'"]


async def test_plain_subscribers_name_themselves_too() -> None:
    async def fine(event: Ping) -> None: ...

    async def broken(event: Ping) -> None:
        raise ValueError

    bus = Bus()
    bus.subscribe(Ping, fine)
    bus.subscribe(Ping, broken)
    with pytest.raises(ValueError) as caught:
        await bus.publish(Ping())
    assert caught.value.__notes__ == ["raised by the callback 'broken' during Ping"]
    assert [(s.calls, s.errors) for s in bus.stats()] == [(1, 0), (1, 1)]


async def test_isolated_error_is_in_the_outcome() -> None:
    bus = Bus()
    error = ValueError("no")
    bus.subscribe(Ping, raising(error), name="broken", on_error="isolate")
    bus.subscribe(Ping, lambda event: "ran", name="next")
    outcome = await bus.publish(Ping())
    assert outcome["broken"].error is error
    assert outcome["broken"].value is None
    assert outcome["next"].value == "ran"
    assert outcome.errors == (error,)
    assert error.__notes__ == ["raised by the callback 'broken' during Ping"]
    with pytest.raises(ValueError, match="no"):
        outcome.raise_errors()


async def test_several_isolated_errors_become_an_exception_group() -> None:
    bus = Bus()
    errors = [ValueError("a"), KeyError("b")]
    for error in errors:
        bus.subscribe(Ping, raising(error), on_error="isolate")
    outcome = await bus.publish(Ping())
    with pytest.raises(ExceptionGroup) as caught:
        outcome.raise_errors()
    assert list(caught.value.exceptions) == errors


async def test_isolated_error_does_not_change_a_later_error_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    bus = Bus()
    first, last = ValueError("a"), KeyError("b")
    bus.subscribe(Ping, raising(first), on_error="isolate", name="isolated")
    bus.subscribe(Ping, raising(last))
    with pytest.raises(KeyError) as caught:
        await bus.publish(Ping())
    assert caught.value is last
    assert [record.message for record in caplog.records] == ["'isolated' failed, and was isolated"]


async def test_isolated_errors_are_logged_once_while_outcomes_have_them(caplog: pytest.LogCaptureFixture) -> None:
    bus = Bus()
    bus.subscribe(Ping, raising(ValueError("a")), on_error="isolate", name="isolated")
    for _ in range(3):
        await bus.publish(Ping())
    assert [record.message for record in caplog.records] == ["'isolated' failed, and was isolated"]
    bus.subscribe(Ping, raising(KeyError("b")))
    with pytest.raises(KeyError):
        await bus.publish(Ping())
    assert len(caplog.records) == 2


@dataclass(frozen=True)
class FrozenError(Exception):
    code: int


@pytest.mark.parametrize("on_error", ["raise", "isolate"])
@pytest.mark.parametrize("event", [Ping(), phase_event("boarding")()])
async def test_frozen_dataclass_exception_gets_its_note(event: object, on_error: Any) -> None:
    async with Bus() as bus:
        bus.observe(CallbackFailed, lambda event: None)
        bus.subscribe(raising(FrozenError(1)), name="broken", on_error=on_error)
        try:
            (error,) = (await bus.publish(event)).errors
        except FrozenError as raised:
            error = raised
        assert isinstance(error, FrozenError)
        (note,) = error.__notes__
        assert note.startswith("raised by the callback 'broken' during ")


async def test_one_exception_isolated_many_times_grows_no_notes_and_no_traceback() -> None:
    bus = Bus()
    error = ValueError("one")
    bus.subscribe(Ping, raising(error), name="broken", on_error="isolate")
    lengths = set()
    for _ in range(100):
        await bus.publish(Ping())
        lengths.add(len(list(traceback.walk_tb(error.__traceback__))))
    assert lengths == {2}
    assert error.__notes__ == ["raised by the callback 'broken' during Ping"]


@pytest.mark.parametrize("on_error", ["raise", "isolate", Retry(1, backoff=0)])
@pytest.mark.parametrize("phase", [False, True])
def test_cancelled_error_that_nothing_asked_for_is_raised_with_the_callbacks_name(on_error: Any, phase: bool) -> None:
    async def main() -> None:
        bus = Bus()
        bus.subscribe(raising(asyncio.CancelledError("mine")), name="broken", on_error=on_error)
        with pytest.raises(asyncio.CancelledError, match="mine") as caught:
            await bus.publish(phase_event("boarding")() if phase else Ping())
        during = "phase 'boarding'" if phase else "Ping"
        assert caught.value.__notes__ == [f"raised by the callback 'broken' during {during}"]
        assert bus.stats()[0].errors == 1

    asyncio.run(main())


async def test_requested_cancellation_gets_no_note() -> None:
    bus = Bus()
    caught: list[BaseException] = []
    bus.subscribe(Ping, sleeps_forever)
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await bus.publish(Ping())
        except BaseException as error:
            caught.append(error)
            raise
    assert not hasattr(caught[0], "__notes__")
    assert bus.stats()[0].errors == 0


def test_retry_pauses_for_any_number_of_tries() -> None:
    assert Retry(10_000, jitter=0).pause(9_999) == 30.0
    assert Retry(10_000, backoff=0, jitter=0).pause(9_999) == 0


async def test_an_outcome_without_errors_raises_nothing_and_shows_itself() -> None:
    bus = Bus()
    bus.subscribe(Ping, lambda event: 1, name="one")
    outcome = await bus.publish(Ping())
    outcome.raise_errors()
    assert repr(outcome) == "Outcome(Result(name='one', value=1, error=None, seconds=None))"
    with pytest.raises(KeyError):
        outcome["two"]


async def test_outcome_is_a_sequence_of_results_and_a_mapping_by_name() -> None:
    bus = Bus()
    for name in "abc":
        bus.subscribe(Ping, lambda event, name=name: name, name=name)
    outcome = await bus.publish(Ping())
    assert (outcome[0].name, outcome[-1].name, outcome["b"].value) == ("a", "c", "b")
    assert [result.value for result in outcome[1:]] == ["b", "c"]
    assert [result.value for result in reversed(outcome)] == ["c", "b", "a"]
    with pytest.raises(IndexError):
        outcome[3]


async def test_isolation_does_not_catch_system_exit() -> None:
    bus = Bus()
    bus.subscribe(Ping, raising(SystemExit()), on_error="isolate")
    with pytest.raises(SystemExit):
        await bus.publish(Ping())


async def test_a_retry_calls_again_until_it_works() -> None:
    tries: list[int] = []

    async def flaky(event: Ping) -> int:
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError
        return len(tries)

    bus = Bus()
    bus.subscribe(Ping, flaky, on_error=Retry(2, backoff=0))
    assert (await bus.publish(Ping()))["flaky"].value == 3


async def test_a_retry_gives_up_after_so_many_times_with_the_last_error() -> None:
    tries: list[int] = []

    def broken(event: Ping) -> None:
        tries.append(1)
        raise ConnectionError(len(tries))

    bus = Bus()
    bus.subscribe(Ping, broken, on_error=Retry(2, backoff=0))
    with pytest.raises(ConnectionError, match="3"):
        await bus.publish(Ping())


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (
            ExceptionGroup("of a task group", [ConnectionError(), ExceptionGroup("nested", [ConnectionResetError()])]),
            True,
        ),
        (ExceptionGroup("of a task group", [ConnectionError(), ValueError()]), False),
        (ValueError(), False),
    ],
)
def test_retry_is_for_a_group_of_nothing_but_the_errors_it_names(error: Exception, again: bool) -> None:
    assert Retry(on=ConnectionError).is_for(error) == again
    assert Retry().is_for(error)


async def test_a_retry_is_only_for_the_errors_it_names() -> None:
    tries: list[int] = []

    def broken(event: Ping) -> None:
        tries.append(1)
        raise ValueError

    bus = Bus()
    bus.subscribe(Ping, broken, on_error=Retry(5, on=(ConnectionError, TimeoutError), backoff=0))
    with pytest.raises(ValueError):
        await bus.publish(Ping())
    assert tries == [1]


async def test_a_timeout_holds_for_each_try() -> None:
    tries: list[int] = []

    async def slow_at_first(event: Ping) -> str:
        tries.append(1)
        if len(tries) == 1:
            await anyio.sleep_forever()
        return "ran"

    bus = Bus()
    bus.subscribe(Ping, slow_at_first, timeout=0.02, on_error=Retry(50, on=CallbackTimeoutError, backoff=0))
    assert (await bus.publish(Ping()))["slow_at_first"].value == "ran"


def test_the_pause_doubles_up_to_the_longest_and_is_drawn_below_it() -> None:
    steady = Retry(9, backoff=1.0, longest=5.0, jitter=0.0)
    assert [steady.pause(tries) for tries in (1, 2, 3, 4)] == [1.0, 2.0, 4.0, 5.0]
    assert all(0.5 <= Retry(backoff=1.0, jitter=0.5).pause(1) <= 1.0 for _ in range(100))


async def test_a_timeout_is_an_error_of_ours_that_names_the_callback_and_the_limit() -> None:
    async def slow(event: Ping) -> None:
        await anyio.sleep_forever()

    bus = Bus()
    bus.subscribe(Ping, slow, timeout=0.01)
    with pytest.raises(CallbackTimeoutError, match=r"'slow' took longer than its 0.01 s during Ping") as caught:
        await bus.publish(Ping())
    assert isinstance(caught.value, PhasebusError | TimeoutError)
    assert bus.stats()[0].timeouts == 1


async def test_timeout_error_raised_by_the_callback_is_not_converted() -> None:
    bus = Bus()
    bus.subscribe(Ping, raising(TimeoutError("mine")), timeout=5)
    with pytest.raises(TimeoutError, match="mine") as caught:
        await bus.publish(Ping())
    assert not isinstance(caught.value, CallbackTimeoutError)
    assert bus.stats()[0].timeouts == 0


@pytest.mark.parametrize("on_error", ["raise", "isolate", Retry(3)])
async def test_a_cancellation_from_outside_is_no_timeout_and_is_never_held_back(on_error: Any) -> None:
    async def slow(event: Ping, context: Context) -> None:
        context["a"] = 1
        await anyio.sleep_forever()

    bus = Bus()
    bus.subscribe(Ping, slow, timeout=60, on_error=on_error)
    context = Context()
    outcomes: list[Any] = []
    async with anyio.create_task_group() as tasks:

        async def publish() -> None:
            outcomes.append(await bus.publish(Ping(), context))

        tasks.start_soon(publish)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert outcomes == []
    assert dict(context) == {}
    assert (bus.stats()[0].errors, bus.stats()[0].timeouts) == (0, 0)


async def test_a_timeout_around_the_publish_reaches_its_owner() -> None:
    async def slow(event: Ping) -> None:
        await anyio.sleep_forever()

    bus = Bus()
    bus.subscribe(Ping, slow, timeout=60, on_error="isolate")
    with pytest.raises(TimeoutError) as caught, anyio.fail_after(0.01):
        await bus.publish(Ping())
    assert not isinstance(caught.value, CallbackTimeoutError)


async def test_a_callable_that_blocks_past_its_timeout_has_its_writes_undone() -> None:
    def blocks(event: Ping, context: Context) -> None:
        context["a"] = 1
        start = anyio.current_time()
        while anyio.current_time() < start + 0.03:
            pass

    bus = Bus()
    bus.subscribe(Ping, blocks, timeout=0.01)
    context = Context()
    with pytest.raises(CallbackTimeoutError):
        await bus.publish(Ping(), context)
    assert dict(context) == {}


async def test_a_blocking_callable_declared_a_thread_leaves_the_loop_free() -> None:
    release = threading.Event()

    def blocks(event: Ping, context: Context) -> int:
        release.wait(60)
        context["a"] = 1
        return threading.get_ident()

    bus = Bus()
    bus.subscribe(Ping, blocks, thread=True)
    context = Context()
    idents: list[int] = []
    async with anyio.create_task_group() as tasks:

        async def publish() -> None:
            idents.append((await bus.publish(Ping(), context))["blocks"].value)

        tasks.start_soon(publish)
        await anyio.wait_all_tasks_blocked()
        release.set()
    assert idents != [threading.get_ident()]
    assert dict(context) == {"a": 1}


async def test_thread_that_exceeds_its_timeout_is_abandoned_and_cannot_write() -> None:
    begun, release, ended = threading.Event(), threading.Event(), threading.Event()
    errors: list[BaseException] = []

    def blocks(event: Ping, context: Context) -> None:
        begun.set()
        release.wait(60)
        try:
            context["a"] = 1
        except PhasebusError as error:
            errors.append(error)
        ended.set()

    bus = Bus()
    bus.subscribe(Ping, blocks, thread=True, timeout=0.02, on_error="isolate")
    context = Context()
    while not begun.is_set():  # its time may have run out before there was a thread for it
        outcome = await bus.publish(Ping(), context)
        assert isinstance(outcome["blocks"].error, CallbackTimeoutError)
    release.set()
    await anyio.to_thread.run_sync(ended.wait, 60)
    assert dict(context) == {}
    assert "'blocks' failed during Ping" in str(errors[0])
