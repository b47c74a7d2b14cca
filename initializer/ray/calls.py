"""Waiting for the results of Ray calls without blocking the bus."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import anyio
from anyio.lowlevel import current_token

from phasebus.bus import PhasebusError


class ActorDiedError(PhasebusError):
    """Raised when the process of an actor died before it answered a call."""


async def answer(reference: Any) -> Any:
    """Return the value of a Ray object reference, under asyncio or trio; no thread waits for it.

    Raises:
        ActorDiedError: The actor's process died.
        Exception: What the remote call raised, as itself.
    """
    from ray.exceptions import RayActorError, RayTaskError

    loop: Any = current_token().native_token
    wake = loop.call_soon_threadsafe if hasattr(loop, "call_soon_threadsafe") else loop.run_sync_soon
    arrived = anyio.Event()

    def wake_waiter(_: object) -> None:
        with suppress(RuntimeError):  # the loop has ended, and the waiter with it
            wake(arrived.set)

    future = reference.future()
    future.add_done_callback(wake_waiter)
    await arrived.wait()
    try:
        return future.result()
    except RayTaskError as error:
        raise error.cause if isinstance(error.cause, Exception) else error from None
    except RayActorError as error:
        raise ActorDiedError(f"its process died: {_first_line(error)}") from error


def answer_within(reference: Any, seconds: float) -> Any:
    """Return the value of a Ray object reference; blocks a thread, for `seconds` at most.

    Raises:
        TimeoutError: It did not arrive in time.
        Exception: What Ray or the remote call raised.
    """
    import ray

    return ray.get(reference, timeout=seconds)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
