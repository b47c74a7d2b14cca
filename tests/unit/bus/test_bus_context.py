"""Contexts and views: the mappings that subscribers read and write."""

from __future__ import annotations

import json
from typing import Any

import pytest

from phasebus.bus import Bus, Context, Key, ReadOnlyContext, View
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


async def test_callback_annotated_with_context_gets_one() -> None:
    seen: list[bool] = []
    await run(lambda event, context: seen.append(isinstance(context, Context)))
    assert seen == [True]
