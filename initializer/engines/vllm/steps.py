"""The steps that vLLM's processes report, as engine steps on the bus."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.to_thread

from phasebus.bus import Bus, BusStateError, StepOutcome, outcome_of
from phasebus.initializer.engines.vllm.step_tracker import StepTracker
from phasebus.telemetry import EngineSpan, Notice, Relay

logger = logging.getLogger("phasebus.engine")

FINAL_STEPS_SECONDS = 2.0
"""The longest wait for the reports of a start's last steps, in seconds."""


@asynccontextmanager
async def relayed_steps(bus: Bus, relay: Relay, *, headless: bool = False) -> AsyncIterator[StepTracker]:
    """Publish the reports that arrive at `relay` as engine steps, until the engine has started; all of them end.

    The relay's thread only puts reports into a queue; a thread of ours waits for the bus.

    Args:
        bus: The bus they are published on.
        relay: The relay they arrive at.
        headless: Whether the engine has no API server: it is ready when its workers are.
    """
    arrived: queue.SimpleQueue[EngineSpan | Notice | None] = queue.SimpleQueue()
    steps, threads, settled = StepTracker(headless=headless), bus.threads(), threading.Event()

    settled.set()  # an engine that reports nothing, without our plugin, is not waited for

    def publish() -> None:
        failed = False
        while (received := arrived.get()) is not None:
            try:
                for event in steps.events_of(received):
                    threads.publish(event)
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
    end = relay.listen(arrived.put)
    outcome: StepOutcome = "cancelled"
    why = "the engine was ready before it ended"
    try:
        yield steps
        await anyio.to_thread.run_sync(settled.wait, FINAL_STEPS_SECONDS, abandon_on_cancel=True)
    except BaseException as error:
        outcome, why = outcome_of(error), str(error)
        raise
    finally:
        end()
        arrived.put(None)
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(publisher.join, FINAL_STEPS_SECONDS)
            for event in steps.abandoned(outcome, why):
                await bus.publish(event)
