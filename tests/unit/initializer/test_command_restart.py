"""When a command is started again, and when not."""

from __future__ import annotations

from typing import Any

import pytest

from phasebus.initializer.engines.protocol import EngineError
from phasebus.initializer.node.restart import GaveUpError, RestartPolicy, keep_running, read_policy

pytestmark = pytest.mark.anyio


class Start:
    """Starts that end as listed: whether the engine answered, and why it failed then."""

    def __init__(self, *ends: tuple[bool, str | None]) -> None:
        self._ends = list(ends)
        self.restarts: list[tuple[str, int]] = []

    def recording_deaths(self) -> Any:
        from contextlib import nullcontext

        return nullcontext()

    async def run(self) -> None:
        if not self._ends[0][0]:
            raise EngineError("it ended before its engine answered")

    async def run_again(self, cause: str, attempt: int, pause: Any) -> None:
        self.restarts.append((cause, attempt))
        await pause()
        await self.run()

    async def wait_for_failure(self) -> str | None:
        return self._ends.pop(0)[1]


async def run(start: Any, policy: RestartPolicy) -> list[float]:
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    await keep_running(start, policy, lambda _: None, pause)
    return pauses


async def test_a_command_that_ends_in_order_is_not_started_again() -> None:
    start = Start((True, None))
    assert await run(start, RestartPolicy()) == []
    assert start.restarts == []


async def test_pauses_double_until_an_engine_answers() -> None:
    start = Start((True, "a"), (False, "b"), (False, "c"), (True, "d"), (True, None))
    assert await run(start, RestartPolicy(longest_pause=3.0)) == [1.0, 2.0, 3.0, 1.0]
    assert start.restarts == [("a", 1), ("b", 2), ("c", 3), ("d", 1)]


async def test_it_gives_up_after_as_many_restarts_in_a_row_as_allowed() -> None:
    start = Start((True, "a"), (False, "b"), (False, "c"))
    with pytest.raises(EngineError):
        await run(start, RestartPolicy(limit=2))
    with pytest.raises(GaveUpError, match="a; it is not started again after 0 restarts"):
        await run(Start((True, "a")), RestartPolicy(limit=0))


def test_a_policy_is_read_as_it_is_written() -> None:
    assert read_policy("on-failure") == RestartPolicy()
    assert read_policy("on-failure:3") == RestartPolicy(limit=3)
    for text in ("always", "on-failure:", "on-failure:-1", "on-failure:x", ""):
        with pytest.raises(ValueError, match="on-failure:N"):
            read_policy(text)
