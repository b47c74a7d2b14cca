"""Subscribers that write to a context, and a publish with them."""

from __future__ import annotations

from typing import Any

from phasebus.bus import Bus, Context


class Ping:
    pass


def writes(**values: Any) -> Any:
    def write(event: Any, context: Context) -> None:
        context.update(values)

    return write


async def run(*subscribers: Any, context: Context | None = None, bus: Bus | None = None) -> Context:
    context = Context() if context is None else context
    bus = bus or Bus()
    for number, subscriber in enumerate(subscribers):
        bus.subscribe(Ping, subscriber, name=f"s{number}")
    await bus.publish(Ping(), context)
    return context
