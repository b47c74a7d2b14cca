"""Waiting for an actor that may die without Ray noticing."""

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
    """Return the result of `reference`, while `actor` is pinged.

    Ray takes about 15 s to notice that a raylet is gone, and until then its calls stay pending.

    Args:
        actor: The actor.
        reference: The reference to its answer.
        silence: How long it may leave a ping unanswered, in seconds.
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
    raise AssertionError  # unreachable: a cancellation from outside leaves the task group by itself
