"""The proxy variables: which proxy leads to an address, and addresses that must not be reached through one."""

from __future__ import annotations

import ipaddress
import re
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Final

_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
_PORT: Final = re.compile(r"(?P<host>\[[^\]]*\]|[^:]*):(?P<port>[0-9]+)")


def proxy_for(scheme: str, host: str, port: int) -> str | None:
    """Return the value of the variable for the proxy that leads to an address; None if it is reached directly.

    These are HTTP_PROXY or HTTPS_PROXY, or else ALL_PROXY. In NO_PROXY, a name includes its subdomains; an entry may be an
    address, a network (``10.0.0.0/8``), or ``*``, and may end in a port.
    """
    if urllib.request.proxy_bypass(host):
        return None
    proxies = urllib.request.getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    return None if not proxy or _is_excluded(host, port, proxies.get("no", "")) else proxy


def _is_excluded(host: str, port: int, excluded: str) -> bool:
    return any(_matches(host.lower().strip("[]").rstrip("."), port, entry) for entry in _entries(excluded))


def _entries(excluded: str) -> Iterator[str]:
    return filter(None, re.split(r"[,\s]+", excluded.lower()))


def _matches(host: str, port: int, entry: str) -> bool:
    if (matched := _PORT.fullmatch(entry)) is not None:
        if int(matched["port"]) != port:
            return False
        entry = matched["host"]
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        name = entry.lstrip("*.").rstrip(".")
        return entry == "*" or (name != "" and f".{host}".endswith(f".{name}"))


def without_proxy(environment: Mapping[str, str], *hosts: str) -> Mapping[str, str]:
    """Return NO_PROXY and no_proxy with loopback and `hosts` added; empty where no proxy is configured.

    HTTP clients read one or the other, and treat loopback as any address (requests, urllib, curl, gRPC).

    Args:
        environment: The variables of the process that is not to use a proxy.
        hosts: Further addresses.
    """
    if not any(name.lower().endswith("_proxy") and value for name, value in environment.items()):
        return {}
    named = [part.strip() for name in ("no_proxy", "NO_PROXY") for part in environment.get(name, "").split(",")]
    if "*" in named:
        return {}
    value = ",".join(dict.fromkeys(part for part in (*named, *_LOOPBACK, *hosts) if part))
    return {"NO_PROXY": value, "no_proxy": value}
