"""The limit on the requests that one client may send in a second; probes are exempt, and answered in any case."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from phasebus.telemetry.service.access import PROBES, respond

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_MOST_ADDRESSES: Final = 1024


class RequestRate:
    """Counts the requests of each address, as a token bucket: https://en.wikipedia.org/wiki/Token_bucket.

    The addresses of an IPv6 network of 64 bits count as one. Only the last `_MOST_ADDRESSES` are remembered.

    Args:
        per_second: Requests that one address may send in a second, on average.
        burst: Requests that one address may send at once.
        clock: Returns the time in seconds.
    """

    def __init__(self, per_second: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # what is left, and when that was

    def admits(self, address: str) -> bool:
        """Count a request of `address`, and return whether it may be answered."""
        client, now = _network(address), self._clock()
        left, since = self._buckets.pop(client, (self._burst, now))
        left = min(self._burst, left + (now - since) * self._per_second)
        admitted = left >= 1
        self._buckets[client] = (left - admitted, now)
        if len(self._buckets) > _MOST_ADDRESSES:
            self._buckets.popitem(last=False)
        return admitted


class RateLimit:
    """Answers requests beyond the rate of their client with 429, and closes their connection.

    Args:
        app: The application.
        rate: Counts the requests.
    """

    def __init__(self, app: ASGIApp, rate: RequestRate) -> None:
        self._app = app
        self._rate = rate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or have the application answer it."""
        client = scope.get("client")
        if scope["type"] != "http" or scope["path"] in PROBES or client is None or self._rate.admits(client[0]):
            await self._app(scope, receive, send)
        else:
            await respond(send, 429, "too many requests\n", {"Retry-After": "1", "Connection": "close"})


def _network(address: str) -> str:
    if ":" not in address:
        return address
    try:
        return str(ipaddress.ip_network((address.partition("%")[0], 64), strict=False))
    except ValueError:
        return address
