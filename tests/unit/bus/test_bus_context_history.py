"""The history of a context: who changed what, and how much of it is kept."""

from __future__ import annotations

from typing import Any

import pytest

from phasebus.bus import (
    Bus,
    Context,
    Key,
    OptionError,
)
from tests.support.bus_contexts import Ping, writes

pytestmark = pytest.mark.anyio


COUNT: Key[int] = Key("count", doc="how many")


class Pong:
    pass


async def test_history_lists_author_time_and_event_of_each_change() -> None:
    context = Context({"a": 0}, author="owner")
    ping, pong = Ping(), Pong()
    bus = Bus()
    bus.subscribe(Ping, writes(a=1), name="first")
    bus.subscribe(Pong, writes(a=2), name="second")

    @bus.subscribe(Pong)
    def remove(event: Pong, context: Context) -> None:
        del context["a"]

    await bus.publish(ping, context)
    await bus.publish(pong, context)
    story = context.history("a")
    assert [(c.value, c.by, c.event, c.deleted) for c in story] == [
        (0, "owner", None, False),
        (1, "first", ping, False),
        (2, "second", pong, False),
        (None, "remove", pong, True),
    ]
    assert [c.time for c in story] == sorted(c.time for c in story)
    assert "a" not in context
    assert context.history("never") == ()


def test_history_keeps_the_latest_changes_and_the_first_of_each_key() -> None:
    context = Context({"a": 0, "rare": "first"}, history=100)
    for number in range(1, 10_001):
        context["a"] = number
    assert len(context.log) <= 200
    assert context.commits == 10_002
    story = [change.value for change in context.history("a")]
    assert story[0] == 0
    assert story[1:] == list(range(10_001 - len(story) + 1, 10_001))
    assert len(story) >= 101
    assert [change.value for change in context.history("rare")] == ["first"]
    assert context.changed == ("a", "rare")


async def test_history_of_views_is_bounded_too() -> None:
    context = Context(history=10)
    bus = Bus()
    bus.subscribe(Ping, writes(a=1))
    bus.subscribe(Ping, writes(b=1, c=2))
    for _ in range(100):
        await bus.publish(Ping(), context)
    assert len(context.log) <= 20 + 3
    assert context.history("b")[0].by == "write-2"


@pytest.mark.parametrize("history", [0, -1, 1.5, "10"])
def test_wrong_length_of_the_history_is_refused(history: Any) -> None:
    with pytest.raises(OptionError):
        Context(history=history)
