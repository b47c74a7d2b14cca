"""What subscribers that fail have written, and write afterwards."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from phasebus.bus import Bus, Context, ContextClosedError, Retry, View
from tests.support.bus_contexts import Ping, writes

pytestmark = pytest.mark.anyio


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


@pytest.mark.parametrize("subscribers", [1, 2])
async def test_view_of_failed_awaited_subscriber_refuses_later_writes(subscribers: int) -> None:
    kept: list[View] = []

    async def succeeds(event: Ping, view: View) -> None: ...

    async def broken(event: Ping, view: View) -> None:
        kept.append(view)
        raise ValueError("not today")

    bus = Bus()
    for callback in [succeeds, broken][-subscribers:]:
        bus.subscribe(Ping, callback)
    with pytest.raises(ValueError, match="not today"):
        await bus.publish(Ping(), Context())
    with pytest.raises(ContextClosedError, match="'broken' failed during Ping"):
        kept[0]["a"] = 1
