from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import replace
from importlib.metadata import version

import anyio
import pytest
import trio

from phasebus.bus import Bus, Context, Key, PhaseEvent, phase_event
from phasebus.initializer import (
    CallbackError,
    Phase,
    PhaseError,
    PhaseFailed,
    PhaseFinished,
    PhaseStarted,
    UnexpectedCancellationError,
    run_phases,
)
from phasebus.initializer.pipeline.callbacks import Spelling
from phasebus.initializer.pipeline.phases import _PhaseListRun

pytestmark = pytest.mark.anyio

DETECTS_OPEN_TASK_GROUPS = tuple(map(int, version("anyio").split(".")[:2])) >= (4, 14)

Work = Callable[[Context], Awaitable[None]]


def phase(
    name: str, work: Work | None = None, *, beside: bool = False, joins: bool = True, applies: bool = True
) -> Phase:
    made = Phase(
        name=name,
        before=phase_event(f"pre_{name}"),
        work=work,
        after=phase_event(f"post_{name}"),
        applies=lambda _: applies,
        joins=joins,
    )
    return replace(made, beside=lambda _: True) if beside else made


async def events_of(*phases: Phase, bus: Bus | None = None) -> list[str]:
    events: list[str] = []
    bus = bus or Bus()
    bus.subscribe(PhaseEvent, lambda event: events.append(event.phase))
    await run_phases(bus, phases, Context())
    return events


async def test_phases_run_in_order_each_with_its_events() -> None:
    assert await events_of(phase("a"), phase("b", applies=False), phase("c")) == ["pre_a", "post_a", "pre_c", "post_c"]


async def test_the_work_uses_what_a_callback_has_changed() -> None:
    seen: list[int] = []

    async def work(context: Context) -> None:
        seen.append(context["n"])

    bus = Bus()
    bus.subscribe("pre_a", lambda event, context: {"n": 7})
    await run_phases(bus, [phase("a", work)], Context({"n": 1}))
    assert seen == [7]


async def test_a_phase_beside_lets_the_next_begin_and_ends_before_a_joining_one() -> None:
    placed = anyio.Event()

    async def download(_: Context) -> None:
        await placed.wait()  # would never come, if the placement waited for the download

    async def place(_: Context) -> None:
        placed.set()

    events = await events_of(
        phase("download", download, beside=True), phase("place", place, joins=False), phase("engine")
    )
    assert [moment for moment in events if moment.startswith("pre_")] == ["pre_download", "pre_place", "pre_engine"]
    assert events.index("post_download") < events.index("pre_engine")
    assert events.index("post_place") < events.index("pre_engine")


async def test_callbacks_of_a_phase_end_before_those_of_the_next_begin() -> None:
    order: list[str] = []

    async def slow(event: PhaseEvent) -> None:
        order.append("begun")
        await anyio.lowlevel.checkpoint()
        order.append("done")

    bus = Bus()
    bus.subscribe("pre_a", slow)
    bus.subscribe("pre_b", lambda event: order.append("b"))
    await run_phases(bus, [phase("a", beside=True), phase("b", joins=False)], Context())
    assert order == ["begun", "done", "b"]


async def test_a_failure_beside_cancels_the_others_and_is_raised_unwrapped() -> None:
    ends: list[tuple[str, str]] = []
    begun: list[str] = []
    waiting = anyio.Event()

    async def fail(_: Context) -> None:
        await waiting.wait()
        raise ValueError("no such model")

    async def wait(_: Context) -> None:
        waiting.set()
        await anyio.sleep_forever()

    bus = Bus()
    bus.subscribe(PhaseStarted, lambda event: begun.append(event.name))
    bus.subscribe(PhaseFinished | PhaseFailed, lambda event: ends.append((event.name, getattr(event, "outcome", "ok"))))
    with pytest.raises(ValueError, match="no such model") as caught:
        await events_of(
            phase("download", fail, beside=True), phase("place", wait, joins=False), phase("engine"), bus=bus
        )
    assert caught.value.__notes__ == ["in the phase 'download'"]
    assert sorted(ends) == [("download", "failed"), ("place", "cancelled")]
    assert begun == ["download", "place"]


async def test_no_phase_begins_after_one_has_failed() -> None:
    async def fail(_: Context) -> None:
        raise ValueError("broken")

    begun: list[str] = []
    bus = Bus()
    bus.subscribe(PhaseStarted, lambda event: begun.append(event.name))
    with pytest.raises(ValueError, match="broken"):
        await events_of(phase("a", fail), phase("b", joins=False), bus=bus)
    assert begun == ["a"]


@pytest.mark.parametrize("misspelled", ["local_node_download_modle", "engine_arg"])
async def test_a_misspelled_key_is_named_with_its_callback_and_the_nearest(misspelled: str) -> None:
    bus = Bus()
    bus.subscribe("pre_a", lambda event, context: {misspelled: 1}, name="mine")
    with pytest.raises(
        CallbackError, match=f"'mine' wrote '{misspelled}', which nothing reads; did you mean '"
    ) as caught:
        await run_phases(bus, [phase("a")], Context(), keys=["local_node_download_model", "engine_args"])
    assert "in the phase 'a'" in caught.value.__notes__


async def test_keys_of_the_users_own_are_not_taken_for_misspelled_ones() -> None:
    bus = Bus()
    bus.subscribe("pre_a", lambda event, context: {"reader": "x", Key[int]("engine_arg"): 1})
    context = Context({"engine_argz": 1})
    await run_phases(bus, [phase("a")], context, keys=["engine_args"])
    assert context["reader"] == "x"


async def test_a_callback_that_exits_fails_its_phase_with_names_and_place() -> None:
    def leave(event: PhaseEvent) -> None:
        raise SystemExit(3)

    with pytest.raises(CallbackError, match=r"sys.exit\(3\) was called") as caught:
        await run_with(leave)
    note, place, phase_note = caught.value.__notes__
    assert note == "raised by the callback 'leave' during phase 'pre_a'"
    assert "leave (" in place
    assert phase_note == "in the phase 'a'"


@pytest.mark.parametrize("error", [GeneratorExit(), BaseException("odd"), BaseExceptionGroup("g", [GeneratorExit()])])
async def test_a_callback_that_raises_no_exception_fails_its_phase(error: BaseException) -> None:
    def odd(event: PhaseEvent) -> None:
        raise error

    with pytest.raises(CallbackError, match="which is not an Exception") as caught:
        await run_with(odd)
    assert "in the phase 'a'" in caught.value.__notes__


async def run_with(callback: Callable[..., object], on: str = "pre_a", *phases: Phase) -> None:
    bus = Bus()
    bus.subscribe(on, callback)
    await run_phases(bus, phases or [phase("a")], Context())


def leaked_cancellation() -> BaseException:
    """Return a cancellation that was requested of something else than the code that raises it."""
    if issubclass(anyio.get_cancelled_exc_class(), asyncio.CancelledError):
        return asyncio.CancelledError()
    return trio.Cancelled._create(source="explicit")


@pytest.mark.parametrize("on", ["pre_a", "post_a", "pre_b", "post_b", "pre_c", "post_c"])
async def test_a_cancellation_that_was_not_requested_fails_the_phase_by_name(on: str) -> None:
    outcomes: dict[str, str] = {}

    async def probe(event: PhaseEvent) -> None:
        raise leaked_cancellation()

    bus = Bus()
    bus.subscribe(PhaseFinished | PhaseFailed, lambda event: outcomes.update({event.name: outcome_name(event)}))
    bus.subscribe(on, probe)
    phases = [phase("a"), phase("b", beside=True), phase("c")]
    with pytest.raises(UnexpectedCancellationError, match="nothing outside had requested a cancellation") as caught:
        await run_phases(bus, phases, Context())
    assert f"in the phase {on[-1]!r}" in caught.value.__notes__
    assert any("probe" in note for note in caught.value.__notes__)
    assert outcomes[on[-1]] == "failed"
    assert set(outcomes) <= set("abc"[: "abc".index(on[-1]) + 1])


def outcome_name(event: object) -> str:
    return str(getattr(event, "outcome", "finished"))


@pytest.mark.parametrize("beside", [True, False])
async def test_work_that_ends_in_a_cancellation_not_requested_fails(*, beside: bool) -> None:
    async def work(_: Context) -> None:
        raise leaked_cancellation()

    with pytest.raises(UnexpectedCancellationError) as caught:
        await run_phases(Bus(), [phase("a", work, beside=beside), phase("b")], Context())
    assert "in the phase 'a'" in caught.value.__notes__


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("beside", [True, False])
async def test_a_callback_that_cancels_its_own_task_fails_the_phase(*, beside: bool) -> None:
    async def cancel_task(event: PhaseEvent) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    with pytest.raises(UnexpectedCancellationError):
        await run_with(cancel_task, "pre_a", phase("a", beside=beside), phase("b"))


@pytest.mark.parametrize("beside", [True, False])
async def test_a_cancellation_from_outside_stays_a_cancellation(*, beside: bool) -> None:
    outcomes: list[str] = []

    async def hang(event: PhaseEvent) -> None:
        scope.cancel()
        await anyio.sleep_forever()

    bus = Bus()
    bus.subscribe(PhaseFailed, lambda event: outcomes.append(event.outcome))
    bus.subscribe("pre_a", hang)
    with anyio.CancelScope() as scope:
        await run_phases(bus, [phase("a", beside=beside)], Context())
    assert scope.cancelled_caught
    assert outcomes == ["cancelled"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_cancellation_of_the_callers_task_stays_a_cancellation() -> None:
    started = anyio.Event()

    async def hang(event: PhaseEvent) -> None:
        started.set()
        await anyio.sleep_forever()

    task = asyncio.create_task(run_with(hang))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


request_id: ContextVar[str] = ContextVar("request_id", default="none")


@pytest.mark.parametrize("setting", ["pre_a", "pre_b", "post_b", "pre_c"])
async def test_context_variables_of_a_callback_are_set_in_later_phases(setting: str) -> None:
    seen: dict[str, str] = {}

    def bind(event: PhaseEvent) -> None:
        if event.phase == setting:
            request_id.set("abc")
        seen[event.phase] = request_id.get()

    bus = Bus()
    bus.subscribe(PhaseEvent, bind)
    await run_phases(bus, [phase("a"), phase("b", beside=True), phase("c"), phase("d")], Context())
    assert seen["post_d"] == "abc"
    assert {value for event, value in seen.items() if list(seen).index(event) < list(seen).index(setting)} <= {"none"}


async def test_a_task_group_may_be_open_from_the_first_phase_to_the_last() -> None:
    class Client:
        async def __call__(self, event: PhaseEvent) -> None:
            if event.phase == "pre_a":
                self.tasks = await anyio.create_task_group().__aenter__()
            elif event.phase == "post_c":
                await self.tasks.__aexit__(None, None, None)
                self.closed = True

    client, bus = Client(), Bus()
    bus.subscribe(PhaseEvent, client)
    await run_phases(bus, [phase("a"), phase("b", beside=True), phase("c")], Context())
    assert client.closed


async def leave_open(event: PhaseEvent) -> None:
    await anyio.create_task_group().__aenter__()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_group_left_open_by_a_callback_does_not_hide_the_error() -> None:
    async def fail(_: Context) -> None:
        raise ValueError("no such model")

    with pytest.raises(ValueError, match="no such model"):
        await run_with(leave_open, "pre_a", phase("a"), phase("b", fail))


@pytest.mark.skipif(not DETECTS_OPEN_TASK_GROUPS, reason="anyio detects a task group left open from 4.14 on")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_group_left_open_by_a_callback_is_an_error() -> None:
    with pytest.raises(CallbackError, match="has not left a task group"):
        await run_with(leave_open, "pre_a", phase("a"), phase("b"))


async def test_required_key_that_a_callback_removes_is_an_error() -> None:
    def mine(event: PhaseEvent, context: Context) -> None:
        del context["a"]

    async with Bus() as bus:
        bus.subscribe(PhaseEvent, mine)
        with pytest.raises(CallbackError, match="'mine' removed 'a', which the phases read; write another value"):
            await run_phases(bus, [phase("b")], Context({"a": 1, "own": 2}), keys=["a"])


async def test_key_of_the_callers_own_may_be_removed() -> None:
    def mine(event: PhaseEvent, context: Context) -> None:
        context.pop("own", None)

    async with Bus() as bus:
        bus.subscribe(PhaseEvent, mine)
        context = Context({"a": 1, "own": 2})
        await run_phases(bus, [phase("b")], context, keys=["a"])
    assert dict(context) == {"a": 1}


async def test_phases_that_did_not_run_without_an_error_are_an_error() -> None:
    run = _PhaseListRun(Bus(), Context(), None, Spelling(()))
    with pytest.raises(PhaseError, match="have not finished"):
        run.raise_errors()
