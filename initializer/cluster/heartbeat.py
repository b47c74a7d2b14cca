"""Waiting for the result of an actor, with pings that detect its death before Ray does."""

from __future__ import annotations

from typing import Any

import anyio

from phasebus.bus import PhasebusError
from phasebus.initializer.ray.actors import Actor
from phasebus.initializer.ray.calls import ActorDiedError, answer

_PING_SECONDS = 1.0


class SilentError(PhasebusError):
    """Raised when an actor does not answer pings."""


async def answered_or_silent(
    actor: Actor, reference: Any, silence: float, *, ping_seconds: float = _PING_SECONDS
) -> Any:
    """Return the result of `reference`; ping `actor` meanwhile.

    Ray detects a lost raylet after about 15 s, and its calls stay pending until then.

    Args:
        actor: The actor.
        reference: The reference to the result of a call.
        silence: Maximum time for the answer to a ping, in seconds.
        ping_seconds: The pause between two pings, in seconds.

    Raises:
        SilentError: The actor has not answered a ping for `silence` seconds.
    """
    result: list[Any] = []
    error: list[Exception] = []

    async def wait() -> None:
        try:
            result.append(await answer(reference))
        except Exception as raised:  # noqa: BLE001  # raised again below: the task group would wrap it
            error.append(raised)
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        while True:
            await anyio.sleep(ping_seconds)
            try:
                with anyio.fail_after(silence):
                    await actor.call("ping")
            except (TimeoutError, ActorDiedError):
                error.append(SilentError(f"no answer for {silence:g} s"))
                tasks.cancel_scope.cancel()
                break
    if result:
        return result[0]
    if error:
        raise error[0]
    raise AssertionError  # unreachable: the task group raises a cancellation from outside
