from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import pytest

from phasebus.bus import Bus, Context, Key, PhaseEvent, phase_event
from phasebus.initializer import CallbackError, Phase, PhaseFailed, PhaseFinished, PhaseStarted, run_phases

pytestmark = pytest.mark.anyio

Work = Callable[[Context], Awaitable[None]]


def phase(
    name: str, work: Work | None = None, *, beside: bool = False, joins: bool = True, applies: bool = True
) -> Phase:
    return Phase(
        name=name,
        before=phase_event(f"pre_{name}"),
        work=work,
        after=phase_event(f"post_{name}"),
        applies=lambda _: applies,
        beside=lambda _: beside,
        joins=joins,
    )


async def moments_of(*phases: Phase, bus: Bus | None = None) -> list[str]:
    moments: list[str] = []
    bus = bus or Bus()
    bus.subscribe(PhaseEvent, lambda event: moments.append(event.phase))
    await run_phases(bus, phases, Context())
    return moments


async def test_phases_run_in_order_each_with_its_moments() -> None:
    assert await moments_of(phase("a"), phase("b", applies=False), phase("c")) == ["pre_a", "post_a", "pre_c", "post_c"]


async def test_what_a_callback_changed_is_what_the_work_sees() -> None:
    seen: list[int] = []

    async def work(context: Context) -> None:
        seen.append(context["n"])

    bus = Bus()
    bus.subscribe("pre_a", lambda event, context: {"n": 7})
    await run_phases(bus, [phase("a", work)], Context({"n": 1}))
    assert seen == [7]


async def test_a_phase_that_runs_beside_lets_the_next_begin_and_is_joined_before_those_that_join() -> None:
    placed = anyio.Event()

    async def download(_: Context) -> None:
        await placed.wait()  # would never come, if the placement waited for the download

    async def place(_: Context) -> None:
        placed.set()

    moments = await moments_of(
        phase("download", download, beside=True), phase("place", place, joins=False), phase("engine")
    )
    assert [moment for moment in moments if moment.startswith("pre_")] == ["pre_download", "pre_place", "pre_engine"]
    assert moments.index("post_download") < moments.index("pre_engine")
    assert moments.index("post_place") < moments.index("pre_engine")


async def test_the_callbacks_of_a_phase_are_done_before_the_one_beside_it_is_asked() -> None:
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


async def test_a_failure_beside_cancels_the_others_and_comes_out_as_itself() -> None:
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
        await moments_of(
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
        await moments_of(phase("a", fail), phase("b", joins=False), bus=bus)
    assert begun == ["a"]


@pytest.mark.parametrize("misspelt", ["local_node_download_modle", "engine_arg"])
async def test_a_misspelt_key_is_named_with_its_callback_and_the_nearest(misspelt: str) -> None:
    bus = Bus()
    bus.subscribe("pre_a", lambda event, context: {misspelt: 1}, name="mine")
    with pytest.raises(
        CallbackError, match=f"'mine' wrote '{misspelt}', which nothing reads; did you mean '"
    ) as caught:
        await run_phases(bus, [phase("a")], Context(), keys=["local_node_download_model", "engine_args"])
    assert "in the phase 'a'" in caught.value.__notes__


async def test_keys_of_the_users_own_are_not_taken_for_misspelt_ones() -> None:
    bus = Bus()
    bus.subscribe("pre_a", lambda event, context: {"reader": "x", Key[int]("engine_arg"): 1})
    await run_phases(bus, [phase("a")], Context({"engine_argz": 1}), keys=["engine_args"])


async def test_a_callback_that_exits_fails_its_phase_by_name() -> None:
    def leave(event: PhaseEvent) -> None:
        raise SystemExit(3)

    bus = Bus()
    bus.subscribe("pre_a", leave)
    with pytest.raises(CallbackError, match=r"sys.exit\(3\) was called") as caught:
        await run_phases(bus, [phase("a")], Context())
    assert caught.value.__notes__ == ["raised by the callback 'leave' during phase 'pre_a'", "in the phase 'a'"]
