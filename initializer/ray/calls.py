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
    """Return the value of a Ray object reference, under asyncio or trio, without blocking a thread.

    Raises:
        ActorDiedError: The actor's process died.
        Exception: The error of the remote call, without Ray's wrapper.
    """
    from ray.exceptions import RayActorError, RayTaskError

    loop: Any = current_token().native_token
    wake = loop.call_soon_threadsafe if hasattr(loop, "call_soon_threadsafe") else loop.run_sync_soon
    arrived = anyio.Event()

    def wake_waiter(_: object) -> None:
        with suppress(RuntimeError):  # the loop has ended, so no task waits
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
        TimeoutError: The value did not arrive in time.
        Exception: The error of Ray or of the remote call.
    """
    import ray

    return ray.get(reference, timeout=seconds)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
