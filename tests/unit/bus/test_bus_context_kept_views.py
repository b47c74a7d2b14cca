"""Views that callbacks keep beyond their call."""

from __future__ import annotations

import pytest

from phasebus.bus import Bus, Context, View
from tests.support.bus_contexts import Ping

pytestmark = pytest.mark.anyio


async def test_view_that_is_kept_after_a_write_serves_no_other_subscriber() -> None:
    bus = Bus()
    kept: list[Context] = []

    async def keeps(event: str, context: Context) -> None:
        context["a"] = "keeps"
        kept.append(context)

    async def fails(event: str, context: Context) -> None:
        kept[0]["b"] = "keeps"
        context["c"] = "fails"
        raise ValueError("not today")

    bus.subscribe(str, keeps)
    bus.subscribe(str, fails)
    context = Context()
    with pytest.raises(ValueError, match="not today"):
        await bus.publish("go", context)
    kept[0]["d"] = "keeps"
    assert dict(context) == {"a": "keeps", "b": "keeps", "d": "keeps"}
    assert {context.history(key)[-1].by for key in context} == {"keeps"}


async def test_view_of_finished_subscriber_commits_later_writes_at_once() -> None:
    kept: list[View] = []
    context = Context()
    bus = Bus()
    bus.subscribe(Ping, lambda event, context: kept.append(context), name="starter")
    await bus.publish(Ping(), context)
    kept[0]["late"] = 1
    del kept[0]["late"]
    kept[0]["late"] = 2
    assert dict(context) == {"late": 2}
    assert [(c.by, c.value) for c in context.history("late")] == [("starter", 1), ("starter", None), ("starter", 2)]


async def test_view_that_a_callback_keeps_is_its_own() -> None:
    kept: list[View] = []
    context = Context()
    bus = Bus()
    for name in ("a", "b"):
        bus.subscribe(Ping, lambda event, view: kept.append(view), name=name)
    bus.subscribe(Ping, lambda event, view: None, name="c")
    await bus.publish(Ping(), context)
    for view in kept:
        view[view.by] = 1
    assert [(change.key, change.by) for key in context for change in context.history(key)] == [("a", "a"), ("b", "b")]


@pytest.mark.parametrize("subscribers", [1, 2, 3])
@pytest.mark.parametrize("writes", [(), ("x",), ("x", "y")])
async def test_view_kept_by_an_awaited_callback_commits_later_writes_as_its_own(
    subscribers: int, writes: tuple[str, ...]
) -> None:
    kept: list[View] = []
    context = Context()
    bus = Bus()

    async def keeps(event: Ping, view: View) -> None:
        for key in writes:
            view[key] = view.by
        kept.append(view)

    async def forgets(event: Ping, view: View) -> None:
        for key in writes:
            view[key] = view.by

    for number in range(subscribers):
        bus.subscribe(Ping, keeps if number % 2 == 0 else forgets, name=f"s{number}")
    await bus.publish(Ping(), context)
    for key in writes:
        assert [change.by for change in context.history(key)] == [f"s{number}" for number in range(subscribers)]
    for view in kept:
        view["late"] = view.by
        assert context["late"] == view.by
    assert [change.by for change in context.history("late")] == [f"s{number}" for number in range(0, subscribers, 2)]


async def test_write_of_an_awaited_callback_is_not_written_again_by_the_next_one() -> None:
    async def writes(event: Ping, context: Context) -> None:
        context["a"] = 1

    async def reads(event: Ping, context: Context) -> None:
        assert context["a"] == 1

    context = Context()
    bus = Bus()
    bus.subscribe(Ping, writes)
    bus.subscribe(Ping, reads)
    await bus.publish(Ping(), context)
    assert [change.by for change in context.history("a")] == ["writes"]
