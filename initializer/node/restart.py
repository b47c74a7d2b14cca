"""Starting a command again after it has failed: `phasebus run --restart on-failure[:N]`."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio

from phasebus.bus import PhasebusError
from phasebus.initializer.engines.protocol import EngineError
from phasebus.initializer.node.command import CommandStart

_FORM = re.compile(r"on-failure(?::([0-9]{1,6}))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """How often a command that fails is started again, and when.

    Attributes:
        limit: The largest number of restarts in a row without an engine that answers; None for any number.
        first_pause: The pause before the first restart, in seconds; each further one is twice as long.
        longest_pause: The longest pause, in seconds.
    """

    limit: int | None = None
    first_pause: float = 1.0
    longest_pause: float = 60.0

    def pause(self, attempt: int) -> float:
        """Return the pause before a restart, in seconds.

        Args:
            attempt: The number of the restart in a row, from 1.
        """
        return float(min(self.longest_pause, self.first_pause * 2.0 ** min(attempt - 1, 30)))


def read_policy(text: str) -> RestartPolicy:
    """Return the policy that a user has written as `on-failure` or `on-failure:N`.

    Raises:
        ValueError: It is neither.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is none of: no, on-failure, on-failure:N (at most N restarts in a row)")
    return RestartPolicy(limit=None if found[1] is None else int(found[1]))


class GaveUpError(PhasebusError):
    """Raised when the engine has died as often as it may, although its command has ended without an error."""


async def keep_running(
    start: CommandStart,
    policy: RestartPolicy,
    warn: Callable[[str], None],
    pause: Callable[[float], Awaitable[object]] = anyio.sleep,
) -> None:
    """Run a command to its end; start it again while it fails.

    Args:
        start: The command's start.
        policy: When it is started again.
        warn: Prints a line.
        pause: Waits for a number of seconds.

    Raises:
        CommandNotStartedError: The command cannot be executed.
        EngineError: It has failed for the last time before its engine answered.
        GaveUpError: Its engine has died for the last time.
        DownloadError: The model cannot be downloaded.
    """
    attempt = 0
    begin: Callable[[], Awaitable[None]] = start.run
    with start.recording_deaths():
        while True:
            error: EngineError | None = None
            try:
                await begin()
                attempt = 0
            except EngineError as raised:
                error = raised
            cause = await start.wait_for_failure()
            if cause is None or (policy.limit is not None and attempt >= policy.limit):
                if error is not None:
                    raise error
                if cause is not None:
                    raise GaveUpError(f"{cause}; it is not started again after {attempt} restarts in a row")
                return
            attempt += 1
            seconds = policy.pause(attempt)
            warn(f"{cause}; it is started again in {seconds:g} s")
            begin = _restart(start, cause, attempt, seconds, pause)


def _restart(
    start: CommandStart, cause: str, attempt: int, seconds: float, pause: Callable[[float], Awaitable[object]]
) -> Callable[[], Awaitable[None]]:
    return lambda: start.run_again(cause, attempt, lambda: pause(seconds))
