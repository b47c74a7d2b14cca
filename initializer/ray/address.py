"""Waiting until a Ray cluster answers: `ray.init` itself waits for a quarter of an hour, and cannot be interrupted."""

from __future__ import annotations

import logging
import os
from typing import Final
from urllib.parse import urlsplit

import anyio

logger = logging.getLogger("phasebus.ray")

_PAUSE_SECONDS: Final = 1.0
_TRY_SECONDS: Final = 5.0
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


def host_and_port(address: str) -> tuple[str, int] | None:
    """Return the host and the port of ``host:port`` or ``ray://host:port``; None for other addresses, such as "auto"."""
    try:
        parts = urlsplit(address if "://" in address else f"ray://{address}")
        if parts.scheme == "ray" and parts.hostname and parts.port:
            return parts.hostname, parts.port
    except ValueError:
        pass
    return None


async def wait_until_it_answers(address: str, seconds: float) -> None:
    """Wait until something accepts connections at `address`, as far as it names a host and a port.

    Args:
        address: The address of a Ray cluster.
        seconds: For how long to wait.

    Raises:
        TimeoutError: Nothing accepted a connection; the message is the reason of the last attempt.
    """
    found = host_and_port(address)
    if found is None:
        return
    reason = ""
    with anyio.move_on_after(seconds):
        while True:
            refused = await _reason_not_to_connect(*found)
            if refused is None:
                return
            if not reason:
                logger.warning("no Ray cluster answers at %s yet (%s); waiting up to %g s", address, refused, seconds)
            reason = refused
            await anyio.sleep(_PAUSE_SECONDS)
    raise TimeoutError(reason or "it does not answer")


async def _reason_not_to_connect(host: str, port: int) -> str | None:
    """Return why no connection is accepted; None if one is."""
    reason = f"no answer within {_TRY_SECONDS:g} s"
    for each in _names(host):
        with anyio.move_on_after(_TRY_SECONDS):
            try:
                async with await anyio.connect_tcp(each, port):
                    return None
            except OSError as error:
                cause = error.__cause__ or error
                number = getattr(cause, "errno", None) or 0
                reason = os.strerror(number) if number > 0 else str(cause)
    return reason


def _names(host: str) -> tuple[str, ...]:
    """Return the names to try: Ray replaces the loopback address by the one of this machine."""
    if host not in _LOOPBACK:
        return (host,)
    import ray

    return host, ray.util.get_node_ip_address()
