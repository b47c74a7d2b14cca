"""Waiting for Ray's answers without blocking the bus."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.to_thread

from phasebus.bus import PhasebusError


class ActorDiedError(PhasebusError):
    """Raised when the process of an actor died before it had answered."""


async def answer(reference: Any) -> Any:
    """Return what a Ray object reference comes to, whether under asyncio or trio.

    Raises:
        ActorDiedError: The actor's process died.
        Exception: What the remote call raised, as itself.
    """
    import ray
    from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

    while True:
        try:
            # in slices, so that the thread of a caller that was cancelled does not wait for ever
            return await anyio.to_thread.run_sync(lambda: ray.get(reference, timeout=5), abandon_on_cancel=True)
        except GetTimeoutError:
            continue
        except RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else error from None
        except RayActorError as error:
            raise ActorDiedError(f"the engine's process died: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
