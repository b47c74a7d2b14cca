"""The steps that vLLM's processes report, as engine steps on the bus."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.to_thread

from phasebus.bus import Bus, BusStateError, StepOutcome, outcome_of
from phasebus.initializer.engines.vllm.event_clock import on_event_clock
from phasebus.initializer.engines.vllm.step_tracker import StepTracker
from phasebus.telemetry import EngineSpan, Notice, Relay, StepNotice

logger = logging.getLogger("phasebus.engine")

FINAL_STEPS_SECONDS = 2.0
"""The longest wait for the reports of a start's last steps, in seconds."""


@asynccontextmanager
async def relayed_steps(
    bus: Bus, relay: Relay, *, headless: bool = False, final_seconds: float = FINAL_STEPS_SECONDS
) -> AsyncIterator[StepTracker]:
    """Publish the reports that arrive at `relay` as engine steps, until the engine has started; all of them end.

    The relay's thread only puts reports into a queue; a thread of ours waits for the bus.

    Args:
        bus: The bus they are published on.
        relay: The relay they arrive at.
        headless: Whether the engine has no API server: it is ready when its workers are.
        final_seconds: The longest wait for the reports of a start's last steps, in seconds.
    """
    arrived: queue.SimpleQueue[EngineSpan | Notice | None] = queue.SimpleQueue()
    steps = StepTracker(headless=headless, is_exported=lambda: relay.is_bypassed, since_ns=time.time_ns())
    threads, settled, spans = bus.threads(), threading.Event(), _SpansOfSteps(arrived)

    settled.set()  # an engine that reports nothing, without our plugin, is not waited for

    def publish() -> None:
        failed = False
        while (received := arrived.get()) is not None:
            try:
                for event in steps.events_of(received):
                    threads.publish(on_event_clock(event))
            except BusStateError:
                return  # the bus has closed: the start is over
            except Exception:
                if not failed:
                    failed = True
                    logger.exception("a report of the engine is left out: %s", type(received).__name__)
            if steps.running:
                settled.clear()
            else:
                settled.set()

    publisher = threading.Thread(target=publish, name="phasebus engine steps", daemon=True)
    publisher.start()
    relay.claim(spans.claim)
    end = relay.listen(spans.receive)
    outcome: StepOutcome = "cancelled"
    why = "the engine was ready before it ended"
    try:
        yield steps
        await anyio.to_thread.run_sync(settled.wait, final_seconds, abandon_on_cancel=True)
    except BaseException as error:
        outcome, why = outcome_of(error), str(error)
        raise
    finally:
        end()
        spans.close()
        arrived.put(None)
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(publisher.join, final_seconds)
            for event in steps.abandoned(outcome, why):
                await bus.publish(on_event_clock(event))


class _SpansOfSteps:
    """Which spans of the engine are steps; used in the relay's thread.

    A step has a span with its own name and parent. The span that the engine exports of it would be a second one.

    Args:
        arrived: The queue for what becomes a step.
    """

    def __init__(self, arrived: queue.SimpleQueue[EngineSpan | Notice | None]) -> None:
        self._arrived = arrived
        self._ids: set[str] = set()
        self._closed = False

    def receive(self, received: EngineSpan | Notice) -> None:
        """Queue what has arrived; note the steps whose processes will export a span, maybe seconds later."""
        if isinstance(received, StepNotice) and received.traced:
            self._ids.add(received.step)
        if not isinstance(received, EngineSpan) or received.span in self._ids:
            self._arrived.put(received)

    def claim(self, span: EngineSpan) -> bool:
        """Return whether `span` is a step: during the start all are."""
        if not self._closed:
            self._ids.add(span.span)
        return span.span in self._ids

    def close(self) -> None:
        """Leave the spans that begin from now on to their process."""
        self._closed = True
