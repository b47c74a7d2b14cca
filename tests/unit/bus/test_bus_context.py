"""What subscribers write: seen when, by whom, and what is left of it when they fail."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

from phasebus.bus import (
    Bus,
    Context,
    ContextClosedError,
    Key,
    ReadOnlyContext,
    Retry,
    View,
)
from tests.support.bus_contexts import Ping, run, writes

pytestmark = pytest.mark.anyio


COUNT: Key[int] = Key("count", doc="how many")


class Pong:
    pass


async def test_a_subscriber_writes_by_item_by_returning_a_mapping_or_by_key() -> None:
    def item(event: Ping, context: Context) -> None:
        context["a"] = 1

    def mapping(event: Ping) -> dict[str, int]:
        return {"b": 2}

    async def mapping_awaited(event: Ping) -> dict[str, int]:
        return {"c": 3}

    def key(event: Ping, context: Context) -> None:
        context[COUNT] = 4

    context = await run(item, mapping, mapping_awaited, key)
    assert dict(context) == {"a": 1, "b": 2, "c": 3, "count": 4}
    assert [context.history(k)[0].by for k in ("a", "b", "c", COUNT)] == ["s0", "s1", "s2", "s3"]


async def test_mappings_of_plain_subscribers_reach_the_publishers_context() -> None:
    async def first(event: Ping) -> dict[str, int]:
        return {"a": 1}

    async def second(event: Ping) -> str:
        return "no mapping"

    context = Context()
    bus = Bus()
    bus.subscribe(Ping, first)
    bus.subscribe(Ping, second)
    outcome = await bus.publish(Ping(), context)
    assert dict(context) == {"a": 1}
    assert [result.value for result in outcome] == [{"a": 1}, "no mapping"]


async def test_a_write_is_seen_by_its_author_at_once_and_by_others_after_success() -> None:
    context = Context({"a": 0})
    seen: list[Any] = []

    async def writer(event: Ping, view: Context) -> None:
        view["a"] = 1
        view["b"] = 2
        seen.append((view["a"], view["b"], dict(context)))

    def reader(event: Ping, view: Context) -> None:
        seen.append(dict(view))

    await run(writer, reader, context=context)
    assert seen == [(1, 2, {"a": 0}), {"a": 1, "b": 2}]


@pytest.mark.parametrize("on_error", ["raise", "isolate"])
async def test_writes_of_a_subscriber_that_raises_are_undone(on_error: Any) -> None:
    def broken(event: Ping, context: Context) -> None:
        context["a"] = 1
        context["b"] = 2
        del context["kept"]
        raise ValueError

    context = Context({"kept": True})
    bus = Bus()
    bus.subscribe(Ping, writes(before=1))
    bus.subscribe(Ping, broken, on_error=on_error)
    try:
        await bus.publish(Ping(), context)
    except ValueError:
        assert on_error == "raise"
    assert dict(context) == {"kept": True, "before": 1}


async def test_writes_of_a_subscriber_that_times_out_are_undone() -> None:
    async def slow(event: Ping, context: Context) -> None:
        context["a"] = 1
        await anyio.sleep_forever()

    context = Context()
    bus = Bus()
    bus.subscribe(Ping, slow, timeout=0.01, on_error="isolate")
    await bus.publish(Ping(), context)
    assert dict(context) == {}
    assert context.history("a") == ()


async def test_each_try_begins_with_an_unwritten_context() -> None:
    tries: list[Any] = []

    def flaky(event: Ping, context: Context) -> None:
        tries.append(context.get("a"))
        context["a"] = len(tries)
        if len(tries) < 3:
            raise ValueError

    context = Context()
    bus = Bus()
    bus.subscribe(Ping, flaky, on_error=Retry(2, backoff=0))
    await bus.publish(Ping(), context)
    assert tries == [None, None, None]
    assert [change.value for change in context.history("a")] == [3]


async def test_view_of_failed_subscriber_refuses_later_writes() -> None:
    kept: list[View] = []

    def broken(event: Ping, view: View) -> None:
        kept.append(view)
        raise ValueError

    bus = Bus()
    bus.subscribe(Ping, broken, on_error="isolate")
    await bus.publish(Ping(), Context())
    with pytest.raises(ContextClosedError, match="'broken' failed during Ping"):
        kept[0]["a"] = 1


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


async def test_contexts_have_the_operators_of_a_dict() -> None:
    def use(event: Ping, data: View) -> dict[str, Any]:
        assert data | {"a": 2} == {"a": 2}
        assert {"z": 0} | data == {"z": 0, "a": 1}
        data |= {"b": 2}
        copied = data.copy()
        copied["c"] = 3
        return data | {"d": 4}

    context = await run(use, context=Context({"a": 1}))
    assert context == {"a": 1, "b": 2, "d": 4}
    context |= {"e": 5}
    assert [change.by for change in context.history("b")] == ["s0"]
    assert [change.by for change in context.history("e")] == ["phasebus"]
    with pytest.raises(TypeError):
        context | [("a", 1)]  # type: ignore[operator]


async def test_a_view_is_a_mapping_in_every_way() -> None:
    seen: list[Any] = []

    def use(event: Ping, view: View) -> None:
        view["new"] = 1
        del view["gone"]
        view["old"] += 1
        view.setdefault("default", []).append(1)
        assert view.pop("popped") == 5
        with pytest.raises(KeyError):
            view["gone"]
        with pytest.raises(KeyError):
            del view["gone"]
        for key in view:  # overwriting while iterating, as with a dict
            view[key] = view[key]
        seen.append((dict(view), list(view), len(view), "gone" in view, view.get("gone", "none"), dict(view.items())))
        json.dumps(dict(view))
        assert "new" in repr(view)

    context = await run(use, context=Context({"old": 1, "gone": 2, "popped": 5}))
    expected = {"old": 2, "new": 1, "default": [1]}
    assert seen == [(expected, ["old", "new", "default"], 3, False, "none", expected)]
    assert dict(context) == expected


async def test_writes_of_a_nested_publish_are_committed_with_the_outer_view() -> None:
    async def outer(bus: Bus, event: Ping, view: View, *, fail: bool) -> None:
        view["mine"] = 1
        await bus.publish(Pong(), view)
        assert view["inner"] == 2
        assert view["mine"] == 3
        if fail:
            raise ValueError

    for fail in (False, True):
        context = Context()
        bus = Bus()

        async def call(event: Ping, view: View, bus: Bus = bus, fail: bool = fail) -> None:
            await outer(bus, event, view, fail=fail)

        bus.subscribe(Ping, call, name="outer", on_error="isolate")
        bus.subscribe(Pong, writes(inner=2, mine=3), name="inner")
        await bus.publish(Ping(), context)
        assert dict(context) == ({} if fail else {"mine": 3, "inner": 2})
        if not fail:
            assert [(c.by, type(c.event)) for c in context.history("inner")] == [("inner", Pong)]
            assert [(c.by, type(c.event)) for c in context.history("mine")] == [("inner", Pong)]


def test_a_context_is_a_mapping_whose_owner_writes_at_once() -> None:
    context = Context({"a": 1}, author="me")
    context[COUNT] = 2
    assert context.get(COUNT) == 2
    assert context.get("none", 3) == 3
    del context["a"]
    with pytest.raises(KeyError):
        del context["a"]
    assert repr(context) == "Context({'count': 2})"
    assert len(context) == 1
    assert [c.by for c in context.history("a")] == ["me", "me"]


def test_read_only_context_refuses_writes() -> None:
    context = Context({"a": 1})
    view = ReadOnlyContext(context)
    context["b"] = 2
    assert dict(view) == {"a": 1, "b": 2}
    assert len(view.history("b")) == 1
    with pytest.raises(TypeError):
        view["a"] = 2  # type: ignore[index]
    assert len(view) == 2


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


async def test_callback_annotated_with_context_gets_one() -> None:
    seen: list[bool] = []
    await run(lambda event, context: seen.append(isinstance(context, Context)))
    assert seen == [True]


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
