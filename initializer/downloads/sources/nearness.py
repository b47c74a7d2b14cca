"""Addresses that only this machine reaches: a server elsewhere must not make it send requests there.

Behind them are services without authentication, and those from which a cloud's machines get their credentials.
"""

from __future__ import annotations

import ipaddress

_LOOPBACK, _LINK_LOCAL, _ELSEWHERE = 0, 1, 2


def is_nearer(target: str, origin: str) -> bool:
    """Return whether the host `target` is loopback or link-local, and the host `origin`, which names it, is not."""
    return _distance(target) < _ELSEWHERE and _distance(target) != _distance(origin)


def _distance(host: str) -> int:
    host = host.rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return _LOOPBACK
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return _ELSEWHERE
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    if address.is_loopback or address.is_unspecified:
        return _LOOPBACK
    return _LINK_LOCAL if address.is_link_local else _ELSEWHERE
