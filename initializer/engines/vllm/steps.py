"""vLLM's own spans as engine steps on the bus."""

from __future__ import annotations

import queue
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.to_thread

from phasebus.bus import Bus
from phasebus.initializer.engines.vllm.spans import events_of
from phasebus.telemetry import EngineSpan, Relay

_LAST_SPANS_SECONDS = 2.0
"""How long the last spans of a start may take to arrive, in seconds."""


@asynccontextmanager
async def relayed_steps(bus: Bus, relay: Relay, below: str) -> AsyncIterator[None]:
    """Publish the spans that arrive at `relay` as engine steps, until the one directly below `below` has come.

    The relay's thread only puts them into a queue; a thread of ours waits for the bus.

    Args:
        bus: Where they are published.
        relay: Where they arrive.
        below: The id of the step that the outermost spans have as their parent.
    """
    arrived: queue.SimpleQueue[EngineSpan | None] = queue.SimpleQueue()
    threads = bus.threads()
    outermost = threading.Event()

    def publish() -> None:
        while (span := arrived.get()) is not None:
            for event in events_of(span):
                threads.publish(event)
            if span.parent == below:
                outermost.set()

    publisher = threading.Thread(target=publish, name="phasebus engine steps", daemon=True)
    publisher.start()
    end = relay.listen(arrived.put)
    try:
        yield
        await anyio.to_thread.run_sync(outermost.wait, _LAST_SPANS_SECONDS, abandon_on_cancel=True)
    finally:
        end()
        arrived.put(None)
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(publisher.join, _LAST_SPANS_SECONDS)
