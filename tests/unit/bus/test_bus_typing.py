"""What a type checker knows of the bus; mypy checks this file like every other, and pytest runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, assert_type

import pytest

from phasebus.bus import (
    Bus,
    CallbackRunner,
    Change,
    Context,
    Key,
    Observation,
    Outcome,
    ReadOnlyContext,
    Result,
    Stream,
    Subscription,
    View,
)

pytestmark = pytest.mark.anyio

PORT: Key[int] = Key("port", validate=int)
BUNDLES: Key[list[dict[str, float]]] = Key("bundles", on_conflict=lambda old, new: old + new)


@dataclass(frozen=True)
class Ping:
    number: int


async def test_keys_give_the_values_of_every_context_their_types() -> None:
    context = Context({PORT: 80})
    assert_type(context[PORT], int)
    assert_type(context.get(PORT), int | None)
    assert_type(context.get(PORT, "none"), int | str)
    assert_type(context["port"], Any)
    assert_type(context.get(BUNDLES, []), list[dict[str, float]])
    assert_type(context.history("port"), tuple[Change, ...])

    def as_view(view: View, read_only: ReadOnlyContext) -> None:
        assert_type(view[PORT], int)
        assert_type(read_only[PORT], int)
        assert_type(read_only.get(PORT), int | None)

    assert callable(as_view)


async def test_subscribing_gives_handles_in_every_form() -> None:
    async with Bus() as bus:
        assert_type(bus, Bus)

        @bus.subscribe(Ping, timeout=3.0)
        async def typed(event: Ping, context: Context) -> None:
            context[PORT] = event.number

        @bus.subscribe
        def bare(event: Ping) -> None: ...

        @bus.subscribe()
        def called(event: Ping) -> None: ...

        await typed(event=Ping(1), context=Context())
        bare(event=Ping(1))
        called(event=Ping(1))
        with pytest.raises(TypeError):
            called(1, 2)  # type: ignore[call-arg, arg-type]
        assert_type(bus.subscribe("pre_download", lambda event: None), Subscription)
        assert_type(bus.subscribe(Ping | int, lambda event: None, name="it"), Subscription)
        assert_type(bus.observe(Ping, lambda event: None), Observation)
        async with bus.stream(Ping) as stream:
            assert_type(stream, Stream)
        outcome = await bus.publish(Ping(1))
        assert_type(outcome, Outcome)
        assert_type(outcome["typed"], Result)
        assert_type(outcome.errors, tuple[Exception, ...])
        assert_type(bus.wants(Ping), bool)


async def test_the_runner_returns_plain_data() -> None:
    assert_type(await CallbackRunner([lambda phase, config, data: None]).run("test"), dict[str, Any])


async def test_contexts_are_mappings() -> None:
    def takes(mapping: Mapping[str, Any]) -> int:
        return len(mapping)

    assert takes(Context({"a": 1})) + takes(ReadOnlyContext(Context())) == 1
