"""Serving the metrics of a failed start for a while, so that a scraper sees the failure."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from ipaddress import ip_address
from typing import Final

from phasebus.initializer.cli.output import write_err
from phasebus.initializer.node.termination_message import in_kubernetes

LINGER_SECONDS: Final = 35.0
"""The default, in seconds: long enough for two scrapes with the usual interval of 15 s."""


def linger_seconds(configured: float | None, host: str | None, environment: Mapping[str, str] = os.environ) -> float:
    """Return how long the service answers after a failed start, in seconds.

    By default it lingers where a scraper is likely: in Kubernetes, and elsewhere if it can be reached from other machines
    and standard error is no terminal.

    Args:
        configured: The configured time, in seconds; None for the default.
        host: The address of the service; None if there is none.
        environment: Where the variables of Kubernetes are read from.
    """
    if host is None:
        return 0.0
    if configured is not None:
        return configured
    if in_kubernetes(environment) or (not sys.stderr.isatty() and not _is_loopback(host)):
        return LINGER_SECONDS
    return 0.0


async def linger(seconds: float, wait: Callable[[float], Awaitable[object]]) -> None:
    """Announce that the service still answers, and wait.

    Args:
        seconds: How long, in seconds; 0 does nothing.
        wait: Waits for a number of seconds, or until a signal arrives.
    """
    if seconds > 0:
        await wait(0)  # a start that a signal ended does not linger
        write_err(
            f"phasebus: the start has failed; metrics stay up for {seconds:g} s, a signal (Ctrl-C) ends that at once"
        )
        await wait(seconds)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
