"""The rules of keys: conflicts, reducers and checks of values."""

from __future__ import annotations

import pickle
from typing import Any

import anyio
import pytest

from phasebus.bus import (
    Bus,
    ConflictError,
    Context,
    InvalidValueError,
    Key,
)
from tests.support.bus_contexts import Ping, run, writes

pytestmark = pytest.mark.anyio


COUNT: Key[int] = Key("count", doc="how many")


class Pong:
    pass


async def test_last_write_wins_without_a_rule() -> None:
    context = await run(writes(a=1), writes(a=2))
    assert context["a"] == 2


async def test_a_key_may_allow_only_one_writer_an_event() -> None:
    only: Key[int] = Key("only", on_conflict="error")
    bus = Bus()
    bus.subscribe(Ping, lambda event, context: context.update({only: 1}), name="first")
    bus.subscribe(Ping, writes(only=2, other=3), name="second", on_error="isolate")
    context = Context()
    outcome = await bus.publish(Ping(), context)
    assert isinstance(outcome["second"].error, ConflictError)
    assert str(outcome["second"].error).startswith("'first' and 'second' both wrote only during Ping")
    assert dict(context) == {"only": 1}, "all of the loser's writes are undone"
    await bus.publish(Ping(), context)
    assert [c.by for c in context.history("only")] == ["first", "first"]


async def test_the_rules_of_declared_keys_hold_for_plain_names_from_the_start() -> None:
    only: Key[int] = Key("only", on_conflict="error")
    bus = Bus()
    bus.subscribe(Ping, writes(only=1))
    bus.subscribe(Ping, writes(only=2))
    with pytest.raises(ConflictError):
        await bus.publish(Ping(), Context(keys=[only]))


async def test_rule_added_after_a_write_holds_for_it() -> None:
    only: Key[int] = Key("only", on_conflict="error")
    context = Context()

    def plain(event: Ping, view: Context) -> None:
        view["only"] = 1
        context[only] = 0

    bus = Bus()
    bus.subscribe(Ping, plain)
    with pytest.raises(ConflictError):
        await bus.publish(Ping(), context)


async def test_one_subscriber_may_write_such_a_key_as_often_as_it_likes_and_in_every_event() -> None:
    only: Key[int] = Key("only", on_conflict="error")

    def often(event: Any, context: Context) -> None:
        context[only] = 1
        context[only] = 2

    bus = Bus()
    bus.subscribe(Ping, often)
    context = Context()
    await bus.publish(Ping(), context)
    await bus.publish(Ping(), context)
    bus.subscribe(Pong, writes(only=3))
    await bus.publish(Pong(), context)
    assert context["only"] == 3


async def test_reducer_merges_the_writes_of_several_subscribers() -> None:
    flags: Key[list[str]] = Key("flags", on_conflict=lambda old, new: [*old, *new])
    context = Context(keys=[flags])
    await run(writes(flags=["a"]), writes(flags=["b"]), writes(flags=["c"]), context=context)
    assert context[flags] == ["a", "b", "c"]
    assert [c.value for c in context.history("flags")] == [["a"], ["a", "b"], ["a", "b", "c"]]


async def test_concurrent_publishes_with_one_context_conflict_too() -> None:
    only: Key[int] = Key("only", on_conflict="error")
    context = Context(keys=[only])
    bus = Bus()
    go = anyio.Event()

    @bus.subscribe(Ping)
    async def waits(event: Ping, view: Context) -> None:
        view["only"] = 1
        await go.wait()

    @bus.subscribe(Pong)
    async def is_quicker(event: Pong, view: Context) -> None:
        view["only"] = 2

    async with anyio.create_task_group() as tasks:

        async def publish() -> None:
            with pytest.raises(ConflictError):
                await bus.publish(Ping(), context)

        tasks.start_soon(publish)
        await anyio.wait_all_tasks_blocked()
        await bus.publish(Pong(), context)
        go.set()
    assert context["only"] == 2


async def test_validate_checks_and_converts_values() -> None:
    port: Key[int] = Key("port", validate=int)
    context = Context(keys=[port])
    await run(writes(port="80"), context=context)
    assert context[port] == 80
    with pytest.raises(InvalidValueError, match=r"'s0' wrote port = 'http', which is not valid"):
        await run(writes(port="http"), context=context)
    assert context[port] == 80
    with pytest.raises(InvalidValueError):
        context["port"] = None


def test_a_key_is_its_plain_name_to_everything_else() -> None:
    key: Key[int] = Key("n", validate=int)
    assert key == "n"
    assert {str(key): 1}[key] == 1
    assert type(pickle.loads(pickle.dumps(key))) is str


async def test_equal_contributions_to_a_reducer_all_count() -> None:
    total: Key[int] = Key("total", on_conflict=lambda old, new: old + new)
    context = Context({"other": 0}, keys=[total])
    await run(*[lambda event, context: {"total": 1}] * 3, lambda event: {"total": 1}, context=context)
    assert context[total] == 4


async def test_forgotten_changes_cause_no_false_conflict() -> None:
    only: Key[int] = Key("only", on_conflict="error")
    context = Context(keys=[only], history=2)
    await run(writes(only=1), *[writes(other=n) for n in range(10)], context=context)
    bus = Bus()

    @bus.subscribe(Ping)
    def wait(event: Ping, view: Context) -> None:
        view["only"] = 2
        for number in range(10):
            context["other"] = number

    await bus.publish(Ping(), context)
    assert context["only"] == 2


async def test_key_that_is_no_string_is_an_error_however_it_is_written() -> None:
    def returns(event: Ping) -> dict[object, int]:
        return {5: 1}

    def writes_two(event: Ping, context: Context) -> None:
        context["a"] = 1
        context.update({5: 1})  # type: ignore[dict-item]

    for callback in (returns, writes_two):
        async with Bus() as bus:
            bus.subscribe(Ping, callback)
            context = Context()
            with pytest.raises(TypeError, match="5 cannot be a key of a context: keys are strings"):
                await bus.publish(Ping(), context)
            assert dict(context) == {}
    with pytest.raises(TypeError, match="keys are strings"):
        Context()[5] = 1  # type: ignore[call-overload]
