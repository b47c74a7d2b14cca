from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phasebus.bus import Bus, OrderError, Stage

pytestmark = pytest.mark.anyio


class Ping:
    pass


def on(bus: Bus, name: str, **options: Any) -> None:
    bus.subscribe(Ping, lambda event: name, name=name, **options)


async def order(bus: Bus) -> list[str]:
    return [result.value for result in await bus.publish(Ping())]


async def test_subscribers_run_as_they_were_registered() -> None:
    bus = Bus()
    for name in "cab":
        on(bus, name)
    assert await order(bus) == ["c", "a", "b"]


async def test_before_and_after_come_first_and_stages_second() -> None:
    bus = Bus()
    on(bus, "late", stage=Stage.LATE)
    on(bus, "normal")
    on(bus, "early", stage=Stage.EARLY)
    assert await order(bus) == ["early", "normal", "late"]
    on(bus, "first", before=["early"], stage=Stage.LATE)
    on(bus, "second", after="first", before="late")
    assert await order(bus) == ["normal", "first", "early", "second", "late"]


def test_unknown_name_in_before_or_after_raises_with_the_known_names() -> None:
    bus = Bus()
    on(bus, "a")
    with pytest.raises(OrderError, match=r"'b' is to run before or after 'missing', which is not subscribed \(a\)"):
        on(bus, "b", after="missing")
    with pytest.raises(OrderError):
        on(bus, "c", after="b")


def test_a_cycle_is_an_error_that_names_its_members() -> None:
    bus = Bus()
    on(bus, "a")
    on(bus, "b", after="a")
    with pytest.raises(
        OrderError, match=r"a before b before c before a|b before c before a before b|c before a before"
    ):
        on(bus, "c", after="b", before="a")
    assert "c" not in bus.explain(Ping)


def test_a_name_can_be_taken_once() -> None:
    bus = Bus()
    on(bus, "a")
    with pytest.raises(OrderError, match="'a' on the bus 'phasebus' already"):
        on(bus, "a")


async def test_one_that_unsubscribes_leaves_the_others_in_order() -> None:
    bus = Bus()
    on(bus, "a")
    with bus.subscribe(Ping, lambda event: "b", name="b"):
        on(bus, "c", before="b")
        assert await order(bus) == ["a", "c", "b"]
    assert await order(bus) == ["a", "c"]


async def test_explain_prints_the_order_and_the_reasons() -> None:
    async with Bus() as bus:
        on(bus, "a")
        on(bus, "b", stage=Stage.EARLY)
        on(bus, "c", before="b")
        bus.observe(Ping, lambda event: None, name="watcher")
        assert bus.explain(Ping) == (
            "Ping: 3 in order\n"
            "  1. a  (stage normal, registered 1.)\n"
            "  2. c  (stage normal, registered 3., before b)\n"
            "  3. b  (stage early, registered 2., c asked to run before it)\n"
            "  +  watcher observes Ping"
        )
    assert Bus().explain(int) == "int: no subscribers"


@st.composite
def plans(draw: st.DrawFn) -> list[tuple[Stage, list[int], list[int]]]:
    """Subscribers as (stage, those they are to run before, those they are to run after), each naming earlier ones."""
    made = []
    for index in range(draw(st.integers(1, 8))):
        earlier = st.lists(st.integers(0, index - 1), max_size=3) if index else st.just([])
        made.append((draw(st.sampled_from(Stage)), draw(earlier), draw(earlier)))
    return made


@given(plans())
def test_any_before_and_after_are_obeyed_or_refused(plan: list[tuple[Stage, list[int], list[int]]]) -> None:
    bus = Bus()
    asked: set[tuple[int, int]] = set()
    on_bus: list[int] = []
    for index, (stage, before, after) in enumerate(plan):
        if not {*before, *after} <= set(on_bus):
            continue
        wanted = {(index, other) for other in before} | {(other, index) for other in after}
        try:
            on(bus, str(index), stage=stage, before=[str(b) for b in before], after=[str(a) for a in after])
        except OrderError:
            assert _cyclic(asked | wanted)
            continue
        asked |= wanted
        assert not _cyclic(asked)
        on_bus.append(index)
    result = [int(line.split()[1]) for line in bus.explain(Ping).splitlines()[1:]]
    assert sorted(result) == on_bus
    place = {index: number for number, index in enumerate(result)}
    assert all(place[first] < place[second] for first, second in asked)
    if not asked:
        assert result == sorted(on_bus, key=lambda index: (plan[index][0], index))


def _cyclic(edges: set[tuple[int, int]]) -> bool:
    left = set(edges)
    while left:
        free = {edge for edge in left if not any(edge[0] == second for _, second in left)}
        if not free:
            return True
        left -= free
    return False
