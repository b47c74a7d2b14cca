from __future__ import annotations

import inspect
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import anyio
import pytest

from phasebus.initializer.cluster.heartbeat import SilentError, answered_or_silent
from phasebus.initializer.cluster.hub.actor import HubActor
from phasebus.initializer.cluster.node_actor import NodeActor
from phasebus.initializer.ray.calls import ActorDiedError

pytest.importorskip("ray")

pytestmark = pytest.mark.anyio


class Reference:
    """A reference of Ray, with what a wait for it needs."""

    def __init__(self) -> None:
        self.answer: Future[Any] = Future()

    def future(self) -> Future[Any]:
        return self.answer


class Actor:
    """An actor that answers each ping by calling `ping`."""

    def __init__(self, ping: Callable[[], Any], enough: int = 0) -> None:
        self._ping = ping
        self._left = enough
        self.enough = anyio.Event()

    async def call(self, method: str) -> None:
        assert method == "ping"
        self._left -= 1
        if self._left == 0:
            self.enough.set()
        await self._ping()


async def answers() -> None:
    """Answer at once."""


async def is_gone() -> None:
    raise ActorDiedError("gone")


async def test_an_actor_that_answers_pings_is_waited_for() -> None:
    reference, actor = Reference(), Actor(answers, enough=5)
    async with anyio.create_task_group() as tasks:

        async def finish() -> None:
            await actor.enough.wait()
            reference.answer.set_result("done")

        tasks.start_soon(finish)
        assert await answered_or_silent(actor, reference, 60, ping_seconds=0.01) == "done"  # type: ignore[arg-type]


@pytest.mark.parametrize("ping", [anyio.sleep_forever, is_gone])
async def test_an_actor_that_does_not_answer_pings_raises_silent_error(ping: Callable[[], Any]) -> None:
    with pytest.raises(SilentError, match=r"no answer for 0\.05 s"):
        await answered_or_silent(Actor(ping), Reference(), 0.05, ping_seconds=0.01)  # type: ignore[arg-type]


async def test_an_error_of_the_call_is_raised() -> None:
    reference = Reference()
    reference.answer.set_exception(ValueError("boom"))
    with pytest.raises(ValueError, match="boom"):
        await answered_or_silent(Actor(answers), reference, 60, ping_seconds=0.01)  # type: ignore[arg-type]


async def test_a_cancelled_wait_ends() -> None:
    with anyio.move_on_after(0.05) as scope:
        await answered_or_silent(Actor(answers), Reference(), 60, ping_seconds=0.01)  # type: ignore[arg-type]
    assert scope.cancelled_caught


@pytest.mark.parametrize("actor", [NodeActor, HubActor])
def test_an_actor_that_answers_while_it_works_has_no_asynchronous_methods(actor: type) -> None:
    """Ray would run all of its methods in one event loop, one after the other."""
    assert inspect.getmembers(actor, inspect.iscoroutinefunction) == []
