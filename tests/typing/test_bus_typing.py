"""What a type checker knows of the bus.

`make lint` checks this file with mypy and pyright. The lines marked with an ``ignore`` are mistakes that both have to
refuse: an ``ignore`` without an error is an error itself. pytest runs what can be run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, assert_type, runtime_checkable

import pytest

from phasebus.bus import (
    Bus,
    CallbackRunner,
    CallbackSignatureError,
    Change,
    Context,
    Key,
    Observation,
    OptionError,
    Outcome,
    ReadOnlyContext,
    Result,
    Stream,
    Subscription,
    View,
)

pytestmark = pytest.mark.anyio

PORT: Key[int] = Key("port")
BUNDLES: Key[list[dict[str, float]]] = Key("bundles", on_conflict=lambda old, new: old + new)


@dataclass(frozen=True)
class Ping:
    number: int


@dataclass(frozen=True)
class Pong:
    number: int


@runtime_checkable
class Numbered(Protocol):
    @property
    def number(self) -> int: ...


def wrong_event(event: Pong) -> None: ...


def four_arguments(a: Any, b: Any, c: Any, d: Any) -> None: ...


def test_keys_give_the_values_of_every_context_their_types() -> None:
    context = Context({PORT: 80})
    assert_type(context[PORT], int)
    assert_type(context.get(PORT), int | None)
    assert_type(context.get(PORT, "none"), int | str)
    assert_type(context["port"], Any)
    empty: list[dict[str, float]] = []
    assert_type(context.get(BUNDLES, empty), list[dict[str, float]])
    assert_type(context.history("port"), tuple[Change, ...])

    def of_views(view: View, read_only: ReadOnlyContext) -> None:
        view[PORT] = 1
        view[PORT] = "no port"  # type: ignore[misc]  # pyright: ignore[reportCallIssue, reportArgumentType]
        assert_type(view[PORT], int)
        assert_type(read_only[PORT], int)
        assert_type(read_only.get(PORT), int | None)
        read_only[PORT] = 1  # type: ignore[index]  # pyright: ignore[reportIndexIssue]

    assert callable(of_views)


def test_a_wrong_value_for_a_key_is_refused_and_plain_names_take_anything() -> None:
    context = Context()
    context[PORT] = 80
    context[BUNDLES] = [{"CPU": 1}]
    context[BUNDLES] = []
    context[BUNDLES] = "none"  # type: ignore[misc]  # pyright: ignore[reportCallIssue, reportArgumentType]
    context[PORT] = "no port"  # type: ignore[misc]  # pyright: ignore[reportCallIssue, reportArgumentType]
    name = str(PORT)
    context[name] = "no port"
    context["other"] = "anything"
    names: dict[str, int] = {PORT: 1}
    assert names


async def test_a_decorated_function_keeps_its_type() -> None:
    bus = Bus()

    @bus.subscribe(Ping, timeout=3.0)
    async def typed(event: Ping, context: Context) -> None:
        context[PORT] = event.number

    @bus.subscribe
    def bare(event: Ping) -> int:
        return event.number

    @bus.subscribe()
    def called(event: Ping) -> None: ...

    await typed(event=Ping(1), context=Context())
    assert_type(bare(event=Ping(1)), int)
    called(Ping(1))
    with pytest.raises(TypeError):
        called(Ping(1), 2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def test_subscribing_a_callback_returns_its_handle() -> None:
    async with Bus() as bus:
        assert_type(bus, Bus)
        assert_type(bus.subscribe(Ping, lambda event: event.number), Subscription)
        assert_type(bus.subscribe(Numbered, lambda event: event.number), Subscription)
        assert_type(bus.subscribe("pre_download", lambda phase, config, data: None), Subscription)
        assert_type(bus.subscribe(Ping | int, lambda event: None, name="it"), Subscription)
        assert_type(bus.subscribe(Any, lambda event: None), Subscription)
        assert_type(bus.subscriptions(), tuple[Subscription, ...])
        assert_type(bus.observe(Ping, lambda event: None), Observation)
        outcome = await bus.publish(Ping(1))
        assert_type(outcome, Outcome)
        assert_type(outcome["it"], Result)
        assert_type(outcome.errors, tuple[Exception, ...])
        assert_type(bus.wants(Ping), bool)


def test_handlers_for_another_event_or_with_other_arguments_are_refused() -> None:
    bus = Bus()
    with pytest.raises(CallbackSignatureError):
        bus.subscribe(Ping, wrong_event)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    with pytest.raises(CallbackSignatureError):
        bus.subscribe(Ping, four_arguments)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    with pytest.raises(CallbackSignatureError):
        bus.subscribe(Ping)(four_arguments)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    with pytest.raises(CallbackSignatureError):
        bus.subscribe(four_arguments)  # type: ignore[type-var]  # pyright: ignore[reportCallIssue, reportArgumentType]
    with pytest.raises(CallbackSignatureError):
        bus.subscribe(Ping)(wrong_event)  # only at run time: a decorator that keeps the type cannot know the event
    with pytest.raises(OptionError):
        bus.subscribe(Ping, timeout="5")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


async def test_a_stream_yields_its_events() -> None:
    async with Bus() as bus:
        async with bus.stream(Ping) as stream:
            assert_type(stream, Stream[Ping])
            await bus.publish(Ping(1))
            assert_type(await anext(stream), Ping)
        async with bus.stream(Numbered) as numbered:
            await bus.publish(Ping(1))
            assert_type((await anext(numbered)).number, int)
        async with bus.stream(Ping | Pong) as either:
            assert_type(either, Stream[Any])


async def test_find_returns_an_event_and_its_condition_gets_one() -> None:
    async with Bus(history=1) as bus:
        await bus.publish(Ping(1))
        assert_type(await bus.find(Ping, where=lambda event: event.number == 1, past=True), Ping)
        assert_type((await bus.find(Numbered, past=True)).number, int)
        assert await bus.find(Ping | Pong, past=True) == Ping(1)
        with pytest.raises(AttributeError):
            await bus.find(Ping, where=lambda event: event.name, past=True)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownLambdaType]


async def test_outcome_gives_results_by_name_and_by_position() -> None:
    outcome = await Bus().publish(Ping(1))
    assert_type(outcome[:1], tuple[Result, ...])
    with pytest.raises(IndexError):
        assert_type(outcome[0], Result)
    with pytest.raises(TypeError):
        outcome[1.5]  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


async def test_a_context_stays_one_when_it_is_updated_by_an_operator() -> None:
    context = Context()
    context |= {"a": 1}
    assert_type(context, Context)
    assert_type(context | {"b": 2}, dict[str, Any])
    assert dict(context) == {"a": 1}


async def test_the_runner_returns_plain_data() -> None:
    assert_type(await CallbackRunner([lambda phase, config, data: None]).run("test"), dict[str, Any])


def test_contexts_are_mappings() -> None:
    def count(mapping: Mapping[str, Any]) -> int:
        return len(mapping)

    assert count(Context({"a": 1})) + count(ReadOnlyContext(Context())) == 1
