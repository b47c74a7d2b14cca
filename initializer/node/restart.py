"""Starting a command again after it has failed: `phasebus run --restart on-failure[:N]`."""

from __future__ import annotations

import re
import time
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
        first_pause: The first pause, in seconds; each further one is twice as long.
        longest_pause: The longest pause, in seconds.
        settled_seconds: How long an engine has to answer until it is restarted without a pause again, in seconds. The
            first engine that answers is restarted so in any case.
    """

    limit: int | None = None
    first_pause: float = 1.0
    longest_pause: float = 60.0
    settled_seconds: float = 60.0

    def pause(self, failures: int) -> float:
        """Return the pause before a restart, in seconds.

        Args:
            failures: How many failures have followed each other; 0 for one of an engine that had answered for long.
        """
        return float(min(self.longest_pause, self.first_pause * 2.0 ** min(failures - 1, 30))) if failures else 0.0


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
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Run a command to its end; start it again while it fails.

    Args:
        start: The command's start.
        policy: When it is started again.
        warn: Prints a line.
        pause: Waits for a number of seconds.
        clock: Returns the time, in seconds.

    Raises:
        CommandNotStartedError: The command cannot be executed.
        EngineError: It has failed for the last time before its engine answered.
        GaveUpError: Its engine has died for the last time.
        DownloadError: The model cannot be downloaded.
    """
    attempt = failures = restarts = 0
    begin: Callable[[], Awaitable[None]] = start.run
    with start.deaths.recorded(), start.leftovers.recorded():
        while True:
            error: EngineError | None = None
            try:
                await begin()
                attempt = 0
            except EngineError as raised:
                error = raised
            began, is_last = clock(), policy.limit is not None and attempt >= policy.limit
            cause = await start.wait_for_failure(at_once=error is None and not is_last)
            if cause is None or is_last:
                if error is not None:
                    raise error
                if cause is not None:
                    raise GaveUpError(f"{cause}; it is not started again after {attempt} restarts in a row")
                return
            if left := await start.leftovers.end():
                warn(f"{', '.join(left)} had outlived the command, and {'was' if len(left) == 1 else 'were'} ended")
            settled = error is None and (restarts == 0 or clock() - began >= policy.settled_seconds)
            attempt, restarts, failures = attempt + 1, restarts + 1, 0 if settled else failures + 1
            seconds = policy.pause(failures)
            warn(f"{cause}; it is started again {f'in {seconds:g} s' if seconds else 'at once'}")
            begin = _restart(start, cause, attempt, seconds, pause)


def _restart(
    start: CommandStart, cause: str, attempt: int, seconds: float, pause: Callable[[float], Awaitable[object]]
) -> Callable[[], Awaitable[None]]:
    return lambda: start.run_again(cause, attempt, lambda: pause(seconds))
