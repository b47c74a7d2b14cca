"""The limits of the HTTP service on connections and requests. They keep file descriptors and memory for the start-up, and the probes quick."""

from __future__ import annotations

import resource
from dataclasses import dataclass, field
from typing import Final

MAX_CONNECTIONS: Final = 256
"""Open connections of a service whose process may open any number of files."""

DESCRIPTORS_SHARE: Final = 8
"""At most one file descriptor in this number is a connection: of the 1,024 of most systems, 128."""

QUEUED_CONNECTIONS: Final = 1024
"""Connections that wait in the system, also while the server is imported. A client that finds no room tries again a second
later."""


def connection_limit() -> int:
    """Return how many connections a service of this process may have."""
    try:
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    except OSError:  # a sandbox denies the call
        return MAX_CONNECTIONS
    if descriptors == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(8, min(MAX_CONNECTIONS, descriptors // DESCRIPTORS_SHARE))


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of one server.

    Attributes:
        connections: Open connections; one more closes the oldest one that has no request, or else the oldest.
        head_seconds: Time that a client has for the head of a request, in seconds.
        stall_seconds: Time after which a client that reads nothing of its response is disconnected, in seconds.
        requests_per_second: Requests that one address may send in a second, on average; None for any number. Probes are
            exempt.
        burst: Requests that one address may send at once.
    """

    connections: int = field(default_factory=connection_limit)
    head_seconds: float = 10.0
    stall_seconds: float = 10.0
    requests_per_second: float | None = 50.0
    burst: float = 200.0
