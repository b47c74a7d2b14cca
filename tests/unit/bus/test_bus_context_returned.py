"""Mappings that subscribers return: which of their values are writes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from phasebus.bus import Bus, Context, Key
from tests.support.bus_contexts import Ping, run, writes

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("timing", [False, True])
@pytest.mark.parametrize("subscribers", [1, 2])
async def test_mappings_of_plain_subscribers_reach_the_publishers_context(subscribers: int, timing: bool) -> None:
    async def first(event: Ping) -> dict[str, int]:
        return {"a": 1}

    async def second(event: Ping) -> str:
        return "no mapping"

    context = Context()
    bus = Bus(timing=timing)
    for callback in [first, second][:subscribers]:
        bus.subscribe(Ping, callback)
    outcome = await bus.publish(Ping(), context)
    assert dict(context) == {"a": 1}
    assert [result.value for result in outcome] == [{"a": 1}, "no mapping"][:subscribers]


async def test_mapping_that_an_awaited_subscriber_without_a_context_returns_is_recorded_as_its_own() -> None:
    async def reads(event: Ping, context: Context) -> None: ...

    async def returns(event: Ping) -> dict[str, int]:
        return {"a": 1}

    context = Context()
    bus = Bus()
    bus.subscribe(Ping, reads)
    bus.subscribe(Ping, returns)
    await bus.publish(Ping(), context)
    assert [(change.value, change.by) for change in context.history("a")] == [(1, "returns")]


def _returns_the_context(event: Any, context: Context) -> Any:
    context["own"] = 1
    return context


def _returns_a_copy(event: Any, context: Context) -> Any:
    return {**context, "own": 1}


def _returns_equal_values(event: Any, context: Context) -> Any:
    return json.loads(json.dumps({"given": context["given"], "own": 1}))


@pytest.mark.parametrize("callback", [_returns_the_context, _returns_a_copy, _returns_equal_values])
async def test_unchanged_values_of_a_returned_mapping_are_no_writes(callback: Any) -> None:
    flags: Key[list[str]] = Key("flags", on_conflict=lambda old, new: [*old, *new])
    leader: Key[str] = Key("leader", on_conflict="error")
    context = Context({"given": {"a": [1]}, "flags": ["a"]}, keys=[flags, leader])
    await run(writes(leader="first"), callback, context=context)
    assert dict(context) == {"given": {"a": [1]}, "flags": ["a"], "leader": "first", "own": 1}
    assert {key: [change.by for change in context.history(key)] for key in context} == {
        "given": ["phasebus"],
        "flags": ["phasebus"],
        "leader": ["s0"],
        "own": ["s1"],
    }


async def test_values_that_cannot_be_compared_are_writes() -> None:
    class Odd:
        def __eq__(self, other: object) -> bool:
            raise TypeError

        __hash__ = None  # type: ignore[assignment]

    context = Context({"odd": [Odd()]})
    await run(lambda event, context: {"odd": [Odd()]}, context=context)
    assert [change.by for change in context.history("odd")] == ["phasebus", "s0"]


async def test_true_and_one_differ() -> None:
    context = Context({"flag": 1})
    await run(lambda event, context: {"flag": True}, context=context)
    assert context["flag"] is True
