"""Waiting for a command until its engine answers."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

import anyio

from phasebus.initializer.engines.optional import CommandObserver, ObservedSteps
from phasebus.initializer.engines.protocol import EngineError, describe_exit
from phasebus.initializer.node.child import ChildProcess
from phasebus.telemetry import Relay

logger = logging.getLogger("phasebus.node")


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervals:
    """The times between two checks of a command that has not answered yet, in seconds.

    Attributes:
        poll: Between two checks of what its engine has reported and whether its process has ended.
        probe: Between two probes of its server, while the engine reports nothing.
        rare_probe: Between two probes of its server, once the engine reports its steps.
    """

    poll: float = 0.05
    probe: float = 1.0
    rare_probe: float = 10.0


async def wait_until_ready(
    steps: ObservedSteps,
    observer: CommandObserver,
    child: ChildProcess,
    relay: Relay,
    command: str,
    intervals: Intervals = Intervals(),
) -> None:
    """Wait for the engine to answer, as the plugin reports it or, without the plugin, as a probe of it shows.

    Args:
        steps: The steps that the engine reports.
        observer: Probes the engine.
        child: The command's process.
        relay: Where the reports arrive.
        command: The command line, for messages.
        intervals: How often it is checked.

    Raises:
        EngineError: The process ended before that.
    """
    reports: list[object] = []
    end = relay.listen(reports.append)
    healthy = 0
    next_probe = time.monotonic() + intervals.probe  # a process that has just been started does not answer
    try:
        while not steps.ready:
            if child.returncode is not None:
                step = f", in the step {where}" if (where := steps.innermost()) else ""
                ended = describe_exit(child.returncode)
                raise EngineError(f"`{command}` {ended} before its engine answered{step}")
            if time.monotonic() >= next_probe:
                # Where the plugin reports, a probe is the exception: each is a line in the server's access log.
                next_probe = time.monotonic() + (intervals.rare_probe if reports else intervals.probe)
                healthy = healthy + 1 if await observer.is_healthy() else 0
                # of several API servers, one may answer while the others still report their steps
                if healthy > (1 if reports and steps.running else 0):
                    _explain_probe(reports)
                    return
            await anyio.sleep(intervals.poll)
    finally:
        end()


def _explain_probe(reports: Sequence[object]) -> None:
    """Log why /health had to be asked."""
    if reports:
        logger.warning("ready by its /health: the engine's last steps were not reported")
    else:
        logger.warning(
            "ready by its /health: the plugin of phasebus was not loaded, so no step of the engine is recorded. "
            "Is phasebus installed in the environment of the command?"
        )
