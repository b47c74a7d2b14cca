"""When a command is started again, and when not."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from phasebus.initializer.engines.protocol import EngineError
from phasebus.initializer.node.restart import GaveUpError, RestartPolicy, keep_running, read_policy

pytestmark = pytest.mark.anyio


class Start:
    """Starts that end as listed: whether the engine answered, and why it failed then."""

    deaths = SimpleNamespace(recorded=nullcontext)
    left: tuple[str, ...] = ()

    @property
    def leftovers(self) -> Any:
        async def end() -> tuple[str, ...]:
            return self.left

        return SimpleNamespace(recorded=nullcontext, end=end)

    def __init__(self, *ends: tuple[bool, str | None], seconds: float = 0.0) -> None:
        self._ends = list(ends)
        self._seconds = seconds
        self.now = 0.0
        self.at_once: list[bool] = []
        self.restarts: list[tuple[str, int]] = []

    async def run(self) -> None:
        if not self._ends[0][0]:
            raise EngineError("it ended before its engine answered")

    async def run_again(self, cause: str, attempt: int, pause: Any) -> None:
        self.restarts.append((cause, attempt))
        await pause()
        await self.run()

    async def wait_for_failure(self, *, at_once: bool) -> str | None:
        self.now += self._seconds
        self.at_once.append(at_once)
        return self._ends.pop(0)[1]


async def run(start: Any, policy: RestartPolicy, warnings: list[str] | None = None) -> list[float]:
    pauses: list[float] = []
    warnings = [] if warnings is None else warnings

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    await keep_running(start, policy, warnings.append, pause, lambda: start.now)
    return pauses


async def test_a_command_that_ends_in_order_is_not_started_again() -> None:
    start = Start((True, None))
    assert await run(start, RestartPolicy()) == []
    assert start.restarts == []


async def test_pauses_double_unless_an_engine_has_answered_for_long() -> None:
    start, warnings = Start((True, "a"), (False, "b"), (False, "c"), (True, "d"), (True, None)), list[str]()
    assert await run(start, RestartPolicy(longest_pause=3.0), warnings) == [0.0, 1.0, 2.0, 3.0]
    assert start.restarts == [("a", 1), ("b", 2), ("c", 3), ("d", 1)]
    assert warnings[:2] == ["a; it is started again at once", "b; it is started again in 1 s"]
    start = Start((False, "a"), (True, "b"), (True, "c"), (True, None), seconds=60.0)
    assert await run(start, RestartPolicy()) == [1.0, 0.0, 0.0]


async def test_processes_that_outlived_the_command_are_ended_before_it_is_started_again() -> None:
    start, warnings = Start((True, "a"), (True, None)), list[str]()
    start.left = ("EngineCore", "Worker")
    await run(start, RestartPolicy(), warnings)
    assert warnings == ["EngineCore, Worker had outlived the command, and were ended", "a; it is started again at once"]


async def test_a_command_is_ended_with_its_engine_only_if_it_is_started_again() -> None:
    start = Start((True, "a"), (False, "b"), (True, "c"), (True, None))
    await run(start, RestartPolicy(limit=3))
    assert start.at_once == [True, False, True, True]
    start = Start((True, "a"))
    with pytest.raises(GaveUpError):
        await run(start, RestartPolicy(limit=0))
    assert start.at_once == [False]


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
